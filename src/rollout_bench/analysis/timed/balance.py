"""Balance of replicas within their steps, and the work of the router between them. Warm-up is left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import pandas as pd

from rollout_bench.analysis.stats.intervals import mean
from rollout_bench.analysis.timed.rows import Row
from rollout_bench.contracts.record import Iteration, ReplicaPass

REPLICA_COLUMNS: dict[str, str] = {
    "replicas": "Int64",
    "replica_imbalance": "Float64",
    "replica_idle_share": "Float64",
    "replica_start_spread_s": "Float64",
}
"""Additional columns of the table if an experiment has replicas, with their types."""


@dataclass(frozen=True)
class Balance:
    """Means and shares of one replica in its steps, or of all replicas.

    Attributes:
        elapsed_s: time of the replica in an iteration; for all replicas the step's time.
        output_tokens: tokens that it generated in an iteration.
        idle_share: share of the steps' time in which its devices waited for the slowest replica or for the release.
        slowest_share: share of iterations in which it was the slowest.
        prompts: distinct prompts that it received in an iteration. This and the next three are None if no load is
            shared.
        cached_share: share of its prompt tokens that came from its prefix cache.
        preemptions: preemptions in an iteration.
        peak_running: most sequences that it ran simultaneously, in any iteration.
    """

    elapsed_s: float
    output_tokens: float
    idle_share: float
    slowest_share: float
    prompts: float | None = None
    cached_share: float | None = None
    preemptions: float | None = None
    peak_running: float | None = None

    @property
    def output_tokens_per_s(self) -> float:
        """Output tokens per second of `elapsed_s`."""
        return self.output_tokens / self.elapsed_s


@dataclass(frozen=True)
class Replicated:
    """The replicas of a row, `each` in the order of their numbers; all numbers are means over valid launches.

    Attributes:
        imbalance: of an iteration: the slowest replica's elapsed time over the mean of all replicas, minus 1.
        start_spread_s: delay between the first and the last replica's start, in the worst iteration.
        ends_s: end of each replica, in seconds after the release: [launches][iterations][replicas].
    """

    row: Row
    whole: Balance
    each: tuple[Balance, ...]
    imbalance: float
    start_spread_s: float
    ends_s: tuple[tuple[tuple[float, ...], ...], ...]

    @property
    def launches(self) -> int:
        """Number of launches behind the means."""
        return len(self.ends_s)


def imbalance(elapsed_s: Sequence[float]) -> float:
    """Return max(t) / mean(t) - 1 over the elapsed times t of replicas, in seconds: 0 for equal times."""
    return max(elapsed_s) / mean(elapsed_s) - 1


def replicated(rows: Sequence[Row]) -> list[Replicated]:
    """Return the replicas of each of `rows` that has replicas in a valid launch."""
    found = []
    for row in rows:
        used = {launch.launch for launch in row.used}
        launches = [
            [(i, i.replicas) for i in record.iterations if i.replicas and len(i.replicas) > 1 and not i.warmup]
            for record in row.experiment.records
            if record.launch in used
        ]
        measured = [passes for passes in launches if passes]
        if measured:
            found.append(_of_launches(row, measured))
    return found


def _of_launches(row: Row, launches: Sequence[Sequence[tuple[Iteration, list[ReplicaPass]]]]) -> Replicated:
    count = len(launches[0][0][1])
    each = tuple(
        Balance(
            elapsed_s=mean([mean([parts[n].elapsed_s for _, parts in passes]) for passes in launches]),
            output_tokens=mean([mean([parts[n].output_tokens for _, parts in passes]) for passes in launches]),
            idle_share=mean([1 - _ran(passes, n) for passes in launches]),
            slowest_share=mean([mean([_slowest(parts) == n for _, parts in passes]) for passes in launches]),
            **_shared([[parts[n] for _, parts in passes] for passes in launches]),
        )
        for n in range(count)
    )
    return Replicated(
        row=row,
        whole=Balance(
            elapsed_s=mean([mean([step.elapsed_s for step, _ in passes]) for passes in launches]),
            output_tokens=mean([mean([step.output_tokens for step, _ in passes]) for passes in launches]),
            idle_share=mean([one.idle_share for one in each]),
            slowest_share=1.0,
        ),
        each=each,
        imbalance=mean([mean([imbalance([p.elapsed_s for p in parts]) for _, parts in passes]) for passes in launches]),
        start_spread_s=max(part.start_offset_s for passes in launches for _, parts in passes for part in parts),
        ends_s=tuple(tuple(tuple(part.end_s for part in parts) for _, parts in passes) for passes in launches),
    )


def _shared(launches: Sequence[Sequence[ReplicaPass]]) -> dict[str, float | None]:
    """Return the known values of one replica's part of a shared load, by the names of `Balance`."""
    parts = [part for passes in launches for part in passes]
    if any(part.prompts is None for part in parts):
        return {}

    def mean_of(values: Sequence[int | None]) -> float | None:
        known = [float(value) for value in values if value is not None]
        return mean(known) if len(known) == len(values) else None

    cached, tokens = mean_of([part.cached_prompt_tokens for part in parts]), mean_of([p.prompt_tokens for p in parts])
    return {
        "prompts": mean_of([part.prompts for part in parts]),
        "cached_share": cached / tokens if cached is not None and tokens else None,
        "preemptions": mean_of([part.preemptions for part in parts]),
        "peak_running": max((float(p.peak_running) for p in parts if p.peak_running is not None), default=None),
    }


def _ran(passes: Sequence[tuple[Iteration, list[ReplicaPass]]], replica: int) -> float:
    return sum(parts[replica].elapsed_s for _, parts in passes) / sum(step.elapsed_s for step, _ in passes)


def _slowest(parts: Sequence[ReplicaPass]) -> int:
    return max(range(len(parts)), key=lambda number: parts[number].end_s)


def replica_line(found: Replicated) -> dict[str, object]:
    """Return the values of `REPLICA_COLUMNS`."""
    return {
        "replicas": len(found.each),
        "replica_imbalance": found.imbalance,
        "replica_idle_share": found.whole.idle_share,
        "replica_start_spread_s": found.start_spread_s,
    }


def replica_table(rows: Sequence[Row]) -> pd.DataFrame:
    """Return a line for each replica of `rows`, in plain units and full precision.

    A row without a valid launch has one line with empty cells.
    """
    found = {one.row.experiment.place: one for one in replicated(rows)}
    columns = ("elapsed_s", "output_tokens", "output_tokens_per_s", "idle_share", "slowest_share")
    lines: list[dict[str, object]] = []
    for row in (row for row in rows if row.experiment.has_replicas):
        one = found.get(row.experiment.place)
        names = {
            "mode": row.experiment.mode,
            "platform": row.experiment.platform,
            **row.axes,
            "experiment": row.experiment.experiment,
            "launches_valid": len(row.used),
            "replica": None,
        }
        lines += [
            names | {"replica": number} | {column: getattr(balance, column) for column in columns}
            for number, balance in enumerate(one.each if one else ())
        ] or [names | dict.fromkeys(columns)]
    return pd.DataFrame(lines).astype({"replica": "Int64"})


@dataclass(frozen=True)
class Routed:
    """A rollout's steps: means over iterations, then over valid launches; None if unknown.

    Attributes:
        engines: number of engines.
        prompts_per_engine: distinct prompts that an engine receives in a step.
        cached_share: share of the prompt tokens that came from prefix caches.
        handing_out_s: from a step's beginning until its last sequence was handed out, in seconds.
        decide_s: time of choosing an engine for a sequence, in seconds.
        loop_delay_p99_s: 99th percentile of the router's delay, in the worst launch.
        preemptions: preemptions of all engines in a step.
        kv_cache_peak: largest used share of a KV cache, over engines and steps.
    """

    engines: int
    prompts_per_engine: float | None
    cached_share: float | None
    handing_out_s: float | None
    decide_s: float | None
    loop_delay_p99_s: float | None
    preemptions: float | None
    kv_cache_peak: float | None


def routed(row: Row) -> Routed | None:
    """Return the means of the router and the engines of `row`; None if no valid launch has a router."""
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
        prompts_per_engine=over(lambda step: _mean_known([part.prompts for part in step.replicas or ()])),
        cached_share=over(_cached_share),
        handing_out_s=over(_part("router", "handing_out_s")),
        decide_s=over(_decide_s),
        loop_delay_p99_s=worst(_part("client", "loop_delay_p99_s")),
        preemptions=over(lambda step: _preemptions(step.replicas or ())),
        kv_cache_peak=worst(_kv_cache_peak),
    )


def _part(part: str, name: str) -> Callable[[Iteration], float | None]:
    def value(step: Iteration) -> float | None:
        held = getattr(step, part)
        return None if held is None else getattr(held, name)

    return value


def _decide_s(step: Iteration) -> float | None:
    return None if step.router is None else step.router.decide_s / max(step.router.decisions, 1)


def _mean_known(values: Sequence[int | None]) -> float | None:
    known = [value for value in values if value is not None]
    return mean(known) if known else None


def _preemptions(parts: Sequence[ReplicaPass]) -> float | None:
    known = [part.preemptions for part in parts if part.preemptions is not None]
    return float(sum(known)) if known else None


def _kv_cache_peak(step: Iteration) -> float | None:
    return max((p.kv_cache_peak for p in step.replicas or () if p.kv_cache_peak is not None), default=None)


def _cached_share(step: Iteration) -> float | None:
    return None if step.cached_prompt_tokens is None else step.cached_prompt_tokens / max(step.prompt_tokens, 1)


def routing_table(rows: Sequence[Row]) -> pd.DataFrame:
    """Return a line for each of `rows`, in plain units and full precision; cells are empty if no launch is valid."""
    lines = []
    for row in rows:
        found = routed(row)
        names = {"platform": row.experiment.platform, **row.axes, "experiment": row.experiment.experiment}
        lines.append(names | {field.name: found and getattr(found, field.name) for field in fields(Routed)})
    return pd.DataFrame(lines)
