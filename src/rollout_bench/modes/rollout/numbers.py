"""Numbers of steps whose sequences a router distributes: what the router did, and what the engines had to do."""

from collections.abc import Sequence

from rollout_bench.contracts.record import Iteration, ReplicaPass
from rollout_bench.contracts.spec import Spec
from rollout_bench.modes.rollout.record import RouterUse
from rollout_bench.numbers.number import Number
from rollout_bench.numbers.replicas import most_of

ROUTER = "Router"


def columns_of(iteration: Iteration, spec: Spec) -> dict[str, float]:
    """Return the columns of a routed iteration."""
    if (router := iteration.of(RouterUse)) is None:
        return {}
    parts = iteration.replicas or []
    found = {
        "handing_out_s": router.handing_out_s,
        "decide_s": router.decide_s,
        "decisions": router.decisions,
        "engines": max(1, len(parts)),
        **_sum(parts, "prompts"),
        **_sum(parts, "preemptions"),
    }
    if iteration.cached_prompt_tokens is not None:
        found |= {"cached_tokens": iteration.cached_prompt_tokens, "prompt_tokens": iteration.prompt_tokens}
    return found


def _sum(parts: Sequence[ReplicaPass], field: str) -> dict[str, float]:
    known = [getattr(part, field) for part in parts if getattr(part, field) is not None]
    return {field: sum(known)} if known else {}


def _late_s(iteration: Iteration) -> float | None:
    return None if iteration.of(RouterUse) is None or iteration.client is None else iteration.client.loop_delay_p99_s


NUMBERS = (
    Number(
        name="engines",
        unit="engines",
        header="engines",
        definition="Number of engines that share a step.",
        top="engines",
        mode="rollout",
        table=ROUTER,
        digits=0,
    ),
    Number(
        name="prompts_per_engine",
        unit="",
        header="prompts/engine",
        definition="Distinct prompts per engine and step, on average.",
        top="prompts",
        bottom="engines",
        mode="rollout",
        table=ROUTER,
        digits=3,
    ),
    Number(
        name="cached_share",
        unit="share",
        header="cached %",
        definition="Share of the prompt tokens from prefix caches.",
        top="cached_tokens",
        bottom="prompt_tokens",
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
        top="handing_out_s",
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
        top="decide_s",
        bottom="decisions",
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
        top="preemptions",
        mode="rollout",
        table=ROUTER,
        digits=3,
    ),
)
