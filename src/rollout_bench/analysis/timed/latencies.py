"""Percentiles of sequences: read from side files, pooled, and reported only if the sample is large enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rollout_bench.analysis.stats.anatomy import PassTimes
from rollout_bench.analysis.stats.percentiles import (
    Array,
    effective_samples,
    percentile_interval,
    samples_needed,
    spread_of_groups,
)
from rollout_bench.analysis.timed.experiments import Collection, TimedExperiment, no_valid_launch
from rollout_bench.analysis.timed.service import at_a_rate, pool_requests
from rollout_bench.contracts.load import longest
from rollout_bench.contracts.modes import mode_of
from rollout_bench.contracts.record import Record, SequenceRow
from rollout_bench.contracts.side_files import read_sequences
from rollout_bench.contracts.store import record_path, sequences_path
from rollout_bench.core.errors import UserError
from rollout_bench.core.mappings import grouped

MEASURES = ("e2el_s", "ttft_s", "output_tokens")
"""Pooled measures: seconds from the iteration's beginning until a sequence was complete, seconds until its first token,
and its length in tokens. The length matters only if the model may end a sequence.
"""


@dataclass(frozen=True)
class PooledSequences:
    """The counted sequences of all valid launches of one experiment.

    `values` has an array [n] by measure, without missing values. `independent` is the number of independent values that
    they are worth, since sequences of a batch share its steps, and iterations their launch. `reasons` explain missing
    measures or launches. `launches` has the values [n] of each launch and their independent number, for requests to a
    server. `of_launch` has the launch of each value [n] if `values` are of several launches.
    """

    values: Mapping[str, Array]
    independent: Mapping[str, int]
    reasons: tuple[str, ...] = ()
    launches: Mapping[str, Sequence[tuple[Array, int]]] = field(default_factory=dict)
    of_launch: Mapping[str, NDArray[np.int_]] = field(default_factory=dict)


def pool_sequences(results: Path, collection: Collection) -> list[PooledSequences]:
    """Return the sequences of each experiment of `collection`, which was read from `results`, in its order."""
    return [_of_requests(e) if mode_of(e.mode).has_loads else _pooled(results, e) for e in collection.experiments]


def _of_requests(experiment: TimedExperiment) -> PooledSequences:
    """Return the sequences of an online experiment, whose side files were read with its records."""
    if not any(record.valid for record in experiment.records):
        return _without(experiment)
    valid = [r.launch for r in experiment.records if r.valid and r.launch in experiment.requests]
    requests = [experiment.requests[launch] for launch in valid]
    lengths = not experiment.records[0].spec.workload.ignore_eos  # else lengths are as requested
    values, independent = pool_requests(requests, lengths)
    launches = {
        measure: tuple(
            (v[measure], n[measure]) for each in requests for v, n in [pool_requests([each])] if measure in v
        )
        for measure in values
    }
    reasons = list(experiment.unread)
    of_launch = {m: np.repeat(np.arange(len(each)), [v.size for v, _ in each]) for m, each in launches.items()}
    return PooledSequences(values, independent, tuple(reasons), launches, of_launch)


def _without(experiment: TimedExperiment) -> PooledSequences:
    reason = no_valid_launch(experiment.records)
    return PooledSequences({}, {}, (reason,) if reason else ())


def _pooled(results: Path, experiment: TimedExperiment) -> PooledSequences:
    valid = [record for record in experiment.records if record.valid]
    if not valid:
        return _without(experiment)
    reasons = []
    launches: list[Mapping[str, Array]] = []
    batches: list[tuple[int, int]] = []
    for record in valid:
        path = sequences_path(record_path(results, experiment.mode, experiment.experiment, record.launch))
        try:
            every = read_sequences(path, record)
        except UserError as error:  # the record is complete without it, so the summary is still useful
            reasons.append(f"launch {record.launch} is not among them, {error.problem}")
            continue
        rows = _counted(record, every)
        launches.append(_sequence_columns(rows))
        batches += [(record.launch, row.iteration) for row in rows]
    if not launches:
        return PooledSequences({}, {}, tuple(reasons))
    pooled = {measure: np.concatenate([launch[measure] for launch in launches]) for measure in MEASURES}
    if np.isnan(pooled["e2el_s"]).any() or np.isnan(pooled["ttft_s"]).any():
        per_prompt = experiment.records[0].spec.workload.requests == "per_prompt"
        why = "requests: per_prompt keeps none" if per_prompt else "the engine did not give all"
        reasons.append(f"no times of single sequences, {why}")
    if experiment.records[0].spec.workload.ignore_eos:
        del pooled["output_tokens"]  # all lengths are as requested
    complete = {measure: values for measure, values in pooled.items() if not np.isnan(values).any()}
    independent = {measure: _independent(values, batches) for measure, values in complete.items()}
    of_launch = dict.fromkeys(complete, np.array([launch for launch, _ in batches]))
    return PooledSequences(complete, independent, tuple(reasons), of_launch=of_launch)


def pass_times_of(record: Record, rows: Sequence[SequenceRow]) -> tuple[PassTimes, ...]:
    """Return the measured iterations of `record` from the `rows` of its side file; empty unless all times are known.

    A sequence begins to run when the engine first schedules it. Behind a server only the client's times are known, so
    it begins when it is sent. Failed sequences are left out. Loads with a fixed duration or rate are left out as well,
    because nobody waits for their last sequence.
    """
    workload = record.spec.workload
    own_limits = workload.dataset is not None and workload.dataset.format == "trace"
    by_pass = grouped((row.iteration, row) for row in rows if not row.failed)
    found = []
    for iteration in record.iterations:
        for_a_time = iteration.point is not None and iteration.point.duration_s is not None
        unbounded = for_a_time or at_a_rate(iteration.point)
        own = [] if iteration.warmup or unbounded else by_pass.get(iteration.index, [])
        begins = [row.sent_s if row.scheduled_s is None else row.scheduled_s for row in own]
        ends = [row.last_token_s for row in own]
        if None in begins or None in ends:
            return ()
        if own:
            one = PassTimes(
                begins_s=np.array(begins, dtype=float),
                ends_s=np.array(ends, dtype=float),
                tokens=np.array([row.output_tokens for row in own], dtype=np.int64),
                prompt=np.array([row.prompt for row in own], dtype=np.int64),
                replica=np.array([row.replica or 0 for row in own], dtype=np.int64),
                index=iteration.index,
                elapsed_s=iteration.elapsed_s,
                limit=None if own_limits else longest(workload.output_tokens),
            )
            found.append(one)
    return tuple(found)


def _counted(record: Record, rows: Sequence[SequenceRow]) -> list[SequenceRow]:
    counted = {iteration.index for iteration in record.iterations if not iteration.warmup}
    return [row for row in rows if row.iteration in counted]


def _sequence_columns(rows: Sequence[SequenceRow]) -> dict[str, Array]:
    return {
        "e2el_s": np.array([row.last_token_s for row in rows], dtype=float),
        "ttft_s": np.array([row.first_token_s for row in rows], dtype=float),
        "output_tokens": np.array([row.output_tokens for row in rows], dtype=float),
    }


def _independent(values: Array, batches: Sequence[tuple[int, int]]) -> int:
    """Return the number of independent values in sequences of these launches and iterations: the smaller estimate."""
    launches, iterations = (np.array(labels) for labels in zip(*batches, strict=True))
    of_iterations = effective_samples(values, launches * (iterations.max() + 1) + iterations)
    return max(1, int(min(of_iterations, effective_samples(values, launches))))


PERCENTILES = (50, 90, 95, 97, 99)
"""Reported percentiles, in ascending order."""

LAST = PERCENTILES[-1]


@dataclass(frozen=True)
class Claimed:
    """A percentile with its interval, in the unit of the measure."""

    percentile: int
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Distribution:
    """Percentiles of one measure over `sequences` sequences, which are worth `independent` independent values.

    `claimed` has the percentiles for which the sample is large enough. If each launch is a separate sample,
    `by_launch` has the means over launches of the percentiles that every launch has.
    """

    sequences: int
    independent: int
    claimed: Mapping[int, Claimed]
    by_launch: Mapping[int, float] = field(default_factory=dict)


def distributions(pooled: PooledSequences) -> dict[str, Distribution]:
    """Return the distribution of each measure in `pooled`."""
    return {
        measure: replace(
            distribution(values, pooled.independent[measure], pooled.of_launch.get(measure)),
            by_launch=_by_launch(pooled.launches.get(measure, ())),
        )
        for measure, values in pooled.values.items()
    }


def _by_launch(launches: Sequence[tuple[Array, int]]) -> dict[int, float]:
    """Return percentiles as means over `launches`, each given as its values [n] and their independent number."""
    found = [distribution(values, independent) for values, independent in launches]
    common = [p for p in PERCENTILES if found and all(p in each.claimed for each in found)]
    return {p: float(np.mean([each.claimed[p].value for each in found])) for p in common}


def distribution(values: Array, independent: int, of_launch: ArrayLike | None = None) -> Distribution:
    """Return the distribution of `values` [n >= 1], worth `independent` <= n independent values.

    If `of_launch` [n] gives the launch of each value, intervals are at least as wide as the spread between launches.
    """
    ordered = np.sort(values)  # makes sorting it again for each percentile cheap
    claimed = {}
    for percentile in claimable(independent):
        found = percentile_interval(ordered, percentile / 100, independent=independent)
        value = float(found.estimate)
        away = 0.0 if of_launch is None else spread_of_groups(values, of_launch, percentile / 100)
        low, high = max(0.0, value - away), value + away
        claimed[percentile] = Claimed(percentile, value, min(float(found.low), low), max(float(found.high), high))
    return Distribution(len(ordered), independent, claimed)


def claimable(samples: int) -> list[int]:
    """Return the `PERCENTILES` for which that many independent values are enough."""
    return [percentile for percentile in PERCENTILES if samples >= samples_needed(percentile / 100)]


def more_for(percentile: int, independent: int) -> int:
    """Return the number of independent values that are missing for `percentile`."""
    return max(0, samples_needed(percentile / 100) - independent)


def _name(measure: str, part: str) -> str:
    """Return a column name, with the unit last: `e2el_p50_low_s`."""
    base = measure.removesuffix("_s")
    return f"{base}_{part}" + ("_s" if base != measure and part != "independent" else "")


def latency_line(found: Mapping[str, Distribution]) -> dict[str, object]:
    """Return the columns of summary.csv on percentiles, without unknown ones."""
    if not found:
        return {}
    # Gaps between tokens are a measure of a request as well, but there are many more of them.
    sequences = [d.sequences for measure, d in found.items() if measure != "itl_s"]
    line: dict[str, object] = {"sequences": max(sequences, default=None)}
    for measure, distribution in found.items():
        line[_name(measure, "independent")] = distribution.independent
        for percentile, claimed in distribution.claimed.items():
            parts = {"": claimed.value, "_low": claimed.low, "_high": claimed.high}
            line |= {_name(measure, f"p{percentile}{end}"): value for end, value in parts.items()}
        line |= {_name(measure, f"p{p}_launch_mean"): value for p, value in distribution.by_launch.items()}
    return line
