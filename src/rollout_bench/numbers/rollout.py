"""Numbers of steps on several engines: what the router did, and how evenly the engines ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rollout_bench.contracts.record import Iteration, Record, ReplicaPass
from rollout_bench.numbers.number import Number

ROUTER = "Router"
BALANCE = "Balance of replicas"


def columns_of_replicas(iteration: Iteration) -> dict[str, float]:
    """Return the columns of an iteration on several engines, and of its router; none for a single engine."""
    parts = iteration.replicas or []
    found: dict[str, float] = {}
    if len(parts) > 1:
        times = [part.elapsed_s for part in parts]
        found |= {
            "replicas": len(parts),
            "replica_imbalance": imbalance(times),
            "replica_idle_s": iteration.elapsed_s - sum(times) / len(times),
        }
    if (router := iteration.router) is not None:
        found |= {"handing_out_s": router.handing_out_s, "decide_s": router.decide_s, "decisions": router.decisions}
        found |= {"engines": max(1, len(parts))}
        found |= _sum(parts, "prompts") | _sum(parts, "preemptions")
        if iteration.cached_prompt_tokens is not None:
            found |= {"cached_tokens": iteration.cached_prompt_tokens, "prompt_tokens": iteration.prompt_tokens}
    return found


def imbalance(elapsed_s: Sequence[float]) -> float:
    """Return max(t) / mean(t) - 1 over the elapsed times t of replicas, in seconds: 0 for equal times."""
    return max(elapsed_s) * len(elapsed_s) / sum(elapsed_s) - 1


def _sum(parts: Sequence[ReplicaPass], field: str) -> dict[str, float]:
    known = [getattr(part, field) for part in parts if getattr(part, field) is not None]
    return {field: sum(known)} if known else {}


def _most(value: Callable[[Iteration], float | None]) -> Callable[[Record], float | None]:
    """Return a function of a record: the largest `value` over its measured iterations; None if none has one."""

    def read(record: Record) -> float | None:
        values = (value(iteration) for iteration in record.iterations if not iteration.warmup)
        return max((known for known in values if known is not None), default=None)

    return read


def _start_spread_s(iteration: Iteration) -> float | None:
    parts = iteration.replicas or []
    return max(part.start_offset_s for part in parts) if len(parts) > 1 else None


def _late_s(iteration: Iteration) -> float | None:
    return None if iteration.router is None or iteration.client is None else iteration.client.loop_delay_p99_s


def _kv_cache_peak(iteration: Iteration) -> float | None:
    return max((p.kv_cache_peak for p in iteration.replicas or () if p.kv_cache_peak is not None), default=None)


ROLLOUT = (
    Number(
        name="replicas",
        unit="",
        header="replicas",
        definition="Number of engines that share an iteration.",
        top="replicas",
        table=BALANCE,
        digits=0,
    ),
    Number(
        name="replica_imbalance",
        unit="",
        header="imbalance %",
        definition="Elapsed time of an iteration's slowest replica / mean elapsed time of all replicas, minus 1; mean "
        "over iterations, then over launches.",
        top="replica_imbalance",
        table=BALANCE,
        factor=100,
        digits=2,
    ),
    Number(
        name="replica_idle_share",
        unit="share",
        header="replicas idle %",
        definition="Share of the step time in which a replica's devices waited for the slowest replica; mean over "
        "replicas: the unused share of the devices' time.",
        top="replica_idle_s",
        bottom="elapsed_s",
        table=BALANCE,
        factor=100,
        digits=2,
    ),
    Number(
        name="replica_start_spread_s",
        unit="s",
        header="start spread ms",
        definition="Time from the start of the first replica to the start of the last, in the worst iteration.",
        read=_most(_start_spread_s),
        across="max",
        table=BALANCE,
        factor=1e3,
        digits=2,
    ),
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
        read=_most(_late_s),
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
        read=_most(_kv_cache_peak),
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
