"""What a rollout's router and its engines did in a step. Warm-up never counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from statistics import mean

import pandas as pd

from rollout_bench.analysis.timed.rows import Row
from rollout_bench.contracts.record import Iteration, ReplicaPass


@dataclass(frozen=True)
class Routed:
    """A rollout's steps: means over iterations, then over valid launches; None where nobody says.

    Attributes:
        engines: how many there are.
        prompts_per_engine: distinct prompts that an engine gets of a step.
        cached_share: share of the prompt tokens that came from prefix caches.
        handing_out_s: from a step's beginning until its last sequence was handed out, in seconds.
        decide_s: time that choosing an engine took for a sequence, in seconds.
        loop_delay_p99_s: by how much the router was late, 99 % of the time; the worst launch.
        wasted_share: share of the generated tokens that the step did not need.
        aborted: sequences that were aborted in a step.
        drain_s: from when the step had enough until its engines had nothing left to do, in seconds.
        preemptions: of all engines in a step.
        kv_cache_peak: largest share of a KV cache in use, of any engine and step.
    """

    engines: int
    prompts_per_engine: float | None
    cached_share: float | None
    handing_out_s: float | None
    decide_s: float | None
    loop_delay_p99_s: float | None
    wasted_share: float | None
    aborted: float | None
    drain_s: float | None
    preemptions: float | None
    kv_cache_peak: float | None


def routed(row: Row) -> Routed | None:
    """Return what the router and the engines of `row` did; None where no valid launch has it."""
    used = {launch.launch for launch in row.used}
    launches = [
        steps
        for record in row.experiment.records
        if record.launch in used and (steps := [i for i in record.iterations if i.router and not i.warmup])
    ]
    if not launches:
        return None

    def over(value: Callable[[Iteration], float | None]) -> float | None:
        means = [mean(known) for steps in launches if (known := [v for v in map(value, steps) if v is not None])]
        return mean(means) if means else None

    def worst(value: Callable[[Iteration], float | None]) -> float | None:
        return max((v for steps in launches for v in map(value, steps) if v is not None), default=None)

    return Routed(
        engines=len(launches[0][0].replicas or ()),
        prompts_per_engine=over(lambda step: _mean([part.prompts for part in step.replicas or ()])),
        cached_share=over(_cached_share),
        handing_out_s=over(lambda step: step.router and step.router.handing_out_s),
        decide_s=over(lambda step: step.router and step.router.decide_s / max(step.router.decisions, 1)),
        loop_delay_p99_s=worst(lambda step: step.client and step.client.loop_delay_p99_s),
        wasted_share=over(_wasted_share),
        aborted=over(lambda step: step.surplus and step.surplus.aborted),
        drain_s=over(lambda step: step.surplus and step.surplus.drain_s),
        preemptions=over(lambda step: _sum(step.replicas or ())),
        kv_cache_peak=worst(lambda step: max((p.kv_cache_peak or 0.0 for p in step.replicas or ()), default=None)),
    )


def _mean(values: Sequence[int | None]) -> float | None:
    known = [value for value in values if value is not None]
    return mean(known) if known else None


def _sum(parts: Sequence[ReplicaPass]) -> float | None:
    known = [part.preemptions for part in parts if part.preemptions is not None]
    return float(sum(known)) if known else None


def _cached_share(step: Iteration) -> float | None:
    return None if step.cached_prompt_tokens is None else step.cached_prompt_tokens / max(step.prompt_tokens, 1)


def _wasted_share(step: Iteration) -> float | None:
    if step.surplus is None:
        return None
    wasted = step.surplus.output_tokens
    return wasted / max(wasted + step.output_tokens, 1)


def routing_table(rows: Sequence[Row]) -> pd.DataFrame:
    """Return a line for each of `rows`, in plain units and full precision; empty fields where nothing is valid."""
    lines = []
    for row in rows:
        found = routed(row)
        names = {"platform": row.experiment.platform, **row.axes, "experiment": row.experiment.experiment}
        lines.append(names | {field.name: found and getattr(found, field.name) for field in fields(Routed)})
    return pd.DataFrame(lines)
