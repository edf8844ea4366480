"""Numbers of steps whose sequences a router distributes: the router's choices, and the engines' work."""

from collections.abc import Sequence

from rollout_bench.contracts.record import Iteration, ReplicaPass
from rollout_bench.contracts.spec import Spec
from rollout_bench.modes.rollout.record import RouterUse, Surplus, TurnsUse
from rollout_bench.numbers.number import ONE, Number
from rollout_bench.numbers.replicas import most_of

ROUTER, TURNS, OVER_SAMPLING = "Router", "Turns", "Over-sampling"


def columns_of(iteration: Iteration, spec: Spec) -> dict[str, float]:
    """Return the columns of a routed iteration."""
    if (router := iteration.of(RouterUse)) is None:
        return {}
    parts = iteration.replicas or []
    columns = {
        "handing_out_s": router.handing_out_s,
        "decide_s": router.decide_s,
        "decisions": router.decisions,
        "engines": max(1, len(parts)),
        **_sum(parts, "prompts"),
        **_sum(parts, "preemptions"),
        **_turn_sums(iteration),
        **_thrown_away(iteration),
    }
    if iteration.cached_prompt_tokens is not None:
        columns |= {"cached_tokens": iteration.cached_prompt_tokens, "prompt_tokens": iteration.prompt_tokens}
    return columns


def _sum(parts: Sequence[ReplicaPass | Surplus], field: str) -> dict[str, float]:
    known = [getattr(part, field) for part in parts if getattr(part, field) is not None]
    return {field: sum(known)} if known else {}


def _turn_sums(iteration: Iteration) -> dict[str, float]:
    """Return the sums of the engines' turns; nothing without turns."""
    uses = [use.model_dump() for part in iteration.replicas or () if (use := part.of(TurnsUse))]
    if not uses:
        return {}
    sums = {name: sum(use[name] for use in uses) for name in uses[0]}
    return {
        **sums,
        "generated_sequences": (made := iteration.sequences + _thrown_away(iteration).get("dropped", 0)),
        "tools": sums["answers"] - made,
        "sequence_s": sums["answer_s"] + sums["tool_s"],
        "engines_s": len(uses) * iteration.elapsed_s,
    }


def _thrown_away(iteration: Iteration) -> dict[str, float]:
    """Return the sums of what the engines generated and the step did not need; nothing without over-sampling."""
    parts = [surplus for part in iteration.replicas or () if (surplus := part.of(Surplus))]
    if not parts:
        return {}
    tokens = sum(part.output_tokens for part in parts)
    return {
        "dropped": sum(part.sequences for part in parts),
        "aborted": sum(part.aborted for part in parts),
        "dropped_tokens": tokens,
        "generated_tokens": iteration.output_tokens + tokens,
        "drain_after_s": max(part.drain_s for part in parts),
        **_sum(parts, "again_tokens"),
    }


def _of(table: str, name: str, unit: str, header: str, definition: str, top: str, bottom: str = ONE) -> Number:
    factor = 100 if unit == "share" else 1e3 if header.endswith(" ms") else 1
    return Number(
        name,
        unit,
        header,
        definition,
        numerator=top,
        denominator=bottom,
        mode="rollout",
        table=table,
        factor=factor,
        digits=3,
    )


def _late_s(iteration: Iteration) -> float | None:
    return None if iteration.of(RouterUse) is None or iteration.client is None else iteration.client.loop_delay_p99_s


NUMBERS = (
    Number(
        name="engines",
        unit="engines",
        header="engines",
        definition="Number of engines that share a step.",
        numerator="engines",
        mode="rollout",
        table=ROUTER,
        digits=0,
    ),
    Number(
        name="prompts_per_engine",
        unit="",
        header="prompts/engine",
        definition="Distinct prompts per engine and step, on average.",
        numerator="prompts",
        denominator="engines",
        mode="rollout",
        table=ROUTER,
        digits=3,
    ),
    Number(
        name="cached_share",
        unit="share",
        header="cached %",
        definition="Share of the prompt tokens from prefix caches.",
        numerator="cached_tokens",
        denominator="prompt_tokens",
        mode="rollout",
        table=ROUTER,
        factor=100,
        digits=3,
    ),
    Number(
        name="handing_out_s",
        unit="s",
        header="handing out ms",
        definition="Time from the beginning of a step until an engine had its last sequence.",
        numerator="handing_out_s",
        mode="rollout",
        table=ROUTER,
        factor=1e3,
        digits=3,
    ),
    Number(
        name="decide_s",
        unit="s",
        header="decision us",
        definition="Time to choose an engine for a sequence, in microseconds.",
        numerator="decide_s",
        denominator="decisions",
        mode="rollout",
        table=ROUTER,
        factor=1e6,
        digits=3,
    ),
    Number(
        name="loop_delay_p99_s",
        unit="s",
        header="late p99 ms",
        definition="99th percentile of the router's delay, in the worst iteration.",
        read=most_of(_late_s),
        across="max",
        mode="rollout",
        table=ROUTER,
        factor=1e3,
        digits=3,
    ),
    Number(
        name="kv_cache_peak_share",
        unit="share",
        header="KV peak %",
        definition="Largest share of an engine's KV cache in use.",
        read=most_of(
            lambda done: max(
                (p.kv_cache_peak for p in done.replicas or () if p.kv_cache_peak is not None), default=None
            )
        ),
        across="max",
        mode="rollout",
        table=ROUTER,
        factor=100,
        digits=3,
    ),
    Number(
        name="preemptions",
        unit="",
        header="preemptions",
        definition="Preemptions per step, over all engines.",
        numerator="preemptions",
        mode="rollout",
        table=ROUTER,
        digits=3,
    ),
    _of(TURNS, "turns_per_sequence", "", "turns", "Answers per sequence.", "answers", "generated_sequences"),
    _of(
        TURNS,
        "turn_s",
        "s",
        "turn s",
        "Time of an answer, from its request until it is complete.",
        "answer_s",
        "answers",
    ),
    _of(TURNS, "tool_wait_s", "s", "tool s", "Time of a sequence in a tool, as measured.", "tool_s", "tools"),
    _of(
        TURNS,
        "tool_share",
        "share",
        "in tools %",
        "Share of the sequences' time in which they waited for tools and left their places in the engine free.",
        "tool_s",
        "sequence_s",
    ),
    _of(
        TURNS,
        "all_in_tools_share",
        "share",
        "all in tools %",
        "Share of the engines' time in a step with nothing to do because all unfinished sequences were in tools.",
        "all_in_tools_s",
        "engines_s",
    ),
    _of(
        TURNS,
        "recomputed_share",
        "share",
        "computed again %",
        "Share of the context of further turns that was computed in an earlier turn and not found in the prefix cache.",
        "recomputed_tokens",
        "context_tokens",
    ),
    _of(
        OVER_SAMPLING,
        "dropped_sequences",
        "",
        "sequences thrown away",
        "Sequences per step that it did not need, in part or whole.",
        "dropped",
    ),
    _of(
        OVER_SAMPLING,
        "aborted_sequences",
        "",
        "aborted",
        "Sequences that were unfinished when it had enough.",
        "aborted",
    ),
    _of(
        OVER_SAMPLING,
        "dropped_share",
        "share",
        "tokens thrown away %",
        "Share of the generated tokens in sequences that the step did not need.",
        "dropped_tokens",
        "generated_tokens",
    ),
    _of(
        OVER_SAMPLING,
        "again_share",
        "share",
        "tokens again %",
        "With rollout.partial: tokens of prompts and answers so far that were computed again because sequences of "
        "earlier steps went on, as a share of the generated tokens.",
        "again_tokens",
        "generated_tokens",
    ),
    _of(
        OVER_SAMPLING,
        "drain_after_s",
        "s",
        "until idle ms",
        "Time after a step until its engines had ended the aborted sequences; not part of the step's time.",
        "drain_after_s",
    ),
)
