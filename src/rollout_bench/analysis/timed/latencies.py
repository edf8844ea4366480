"""Percentiles of sequences: read from side files, pooled, and proven only if the sample is large enough."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rollout_bench.analysis.stats.divergence import Bounded
from rollout_bench.analysis.stats.percentiles import (
    Array,
    percentile_interval,
    percentile_of,
    samples_needed,
    spread_of_groups,
)
from rollout_bench.analysis.timed.experiments import ResultSet, TimedExperiment, no_valid_launch
from rollout_bench.analysis.timed.service import LATENCIES, pool_requests
from rollout_bench.contracts.modes import mode_of
from rollout_bench.contracts.record import Record
from rollout_bench.core.errors import UserError

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


def pool_sequences(collection: ResultSet) -> list[PooledSequences]:
    """Return the sequences of each experiment of `collection`, in its order."""
    return [_pool_sequences(experiment) for experiment in collection.experiments]


def _pool_sequences(experiment: TimedExperiment) -> PooledSequences:
    valid = [record for record in experiment.records if record.valid]
    if not valid:
        reason = no_valid_launch(experiment.records)
        return PooledSequences({}, {}, (reason,) if reason else ())
    has_loads = mode_of(experiment.mode).has_loads
    pooled: Sequence[Record] = valid
    if has_loads:  # a launch has one side file for all loads, so the first load lists the unusable ones
        pooled = experiment.whole.records if experiment.part is None or experiment.part.number == 0 else ()
    # A record is complete without its side file, so the summary is still useful.
    reasons = [
        f"launch {record.launch} is not among them, {error.problem}"
        for record in pooled
        if isinstance(error := experiment.side_files[record.launch].content, UserError)
    ]
    counted = [
        record_requests for record in valid if (record_requests := experiment.measured_requests(record)) is not None
    ]
    workload = experiment.records[0].spec.workload
    requests = counted if has_loads else [each.sent_at_start() for each in counted]
    lengths = not workload.ignore_eos  # else they are as requested
    values, independent = pool_requests(requests, lengths)
    if not has_loads:
        size = sum(each.iteration.size for each in requests)
        values = {
            measure: values[measure] for measure in MEASURES if measure in values and values[measure].size == size
        }
        if requests and not {"e2el_s", "ttft_s"} <= values.keys():
            per_prompt = workload.requests == "per_prompt"
            why = "requests: per_prompt keeps none" if per_prompt else "the engine did not give all"
            reasons.append(f"no times of single sequences, {why}")
    alone = [pool_requests([each], lengths) for each in requests]
    launches = {measure: tuple((v[measure], n[measure]) for v, n in alone if measure in v) for measure in values}
    return PooledSequences(
        values,
        {measure: independent[measure] for measure in values},
        tuple(reasons),
        launches={measure: each for measure, each in launches.items() if has_loads and measure in LATENCIES},
        of_launch={m: np.repeat(np.arange(len(each)), [v.size for v, _ in each]) for m, each in launches.items()},
    )


PERCENTILES = (50, 90, 95, 97, 99)
"""Reported percentiles, in ascending order."""

LAST = PERCENTILES[-1]


@dataclass(frozen=True)
class Distribution:
    """Percentiles of one measure over `sequences` sequences, which are worth `independent` independent values.

    `percentiles` has each of `PERCENTILES`, and `proven` those for which the sample is large enough, with intervals, in
    the unit of the measure. If each launch is a separate sample, `by_launch` has the means over launches of all
    percentiles, and `independent_by_launch` the fewest independent values of a launch.
    """

    sequences: int
    independent: int
    percentiles: Mapping[int, float]
    proven: Mapping[int, Bounded]
    by_launch: Mapping[int, float] = field(default_factory=dict)
    independent_by_launch: int = 0

    @property
    def proven_by_launch(self) -> list[int]:
        """The percentiles for which every launch has enough values."""
        return provable(self.independent_by_launch)


def distributions(pooled: PooledSequences) -> dict[str, Distribution]:
    """Return the distribution of each measure in `pooled`."""
    return {
        measure: _with_launches(
            distribution(values, pooled.independent[measure], pooled.of_launch.get(measure)),
            pooled.launches.get(measure, ()),
        )
        for measure, values in pooled.values.items()
    }


def _with_launches(pooled: Distribution, launches: Sequence[tuple[Array, int]]) -> Distribution:
    """Return `pooled` with the means over `launches`, each given as its values [n] and their independent number."""
    if not launches:
        return pooled
    found = [distribution(values, independent) for values, independent in launches]
    means = {p: float(np.mean([each.percentiles[p] for each in found])) for p in PERCENTILES}
    return replace(pooled, by_launch=means, independent_by_launch=min(each.independent for each in found))


def distribution(values: Array, independent: int, of_launch: ArrayLike | None = None) -> Distribution:
    """Return the distribution of `values` [n >= 1], worth `independent` <= n independent values.

    If `of_launch` [n] gives the launch of each value, intervals are at least as wide as the spread between launches.
    """
    ordered = np.sort(values)  # makes sorting it again for each percentile cheap
    percentiles = {p: float(percentile_of(ordered, p / 100)) for p in PERCENTILES}
    proven = {}
    for percentile in provable(independent):
        interval = percentile_interval(ordered, percentile / 100, independent=independent)
        value = percentiles[percentile]
        away = 0.0 if of_launch is None else spread_of_groups(values, of_launch, percentile / 100)
        low, high = max(0.0, value - away), value + away
        proven[percentile] = Bounded(value, min(float(interval.low), low), max(float(interval.high), high))
    return Distribution(len(ordered), independent, percentiles, proven)


def provable(samples: int) -> list[int]:
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
        for percentile, proven in distribution.proven.items():
            parts = {"": proven.value, "_low": proven.low, "_high": proven.high}
            line |= {_name(measure, f"p{percentile}{end}"): value for end, value in parts.items()}
        shown = distribution.proven_by_launch
        line |= {_name(measure, f"p{p}_launch_mean"): distribution.by_launch[p] for p in shown}
    return line
