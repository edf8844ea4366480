"""Decide the number of launches of each experiment from the precision that its comparison should reach."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from rollout_bench.analysis.stats.two_stages import FIRST, TwoStages
from rollout_bench.analysis.timed.baselines import (
    Place,
    against_baseline,
    find_baseline,
    index_by_names,
    is_baseline,
    place_of,
    valid_records,
)
from rollout_bench.analysis.timed.comparison import MIN_PAIRS, Comparison, compare_launches, log_ratios
from rollout_bench.analysis.timed.experiments import TimedExperiment
from rollout_bench.analysis.timed.launches import LaunchMeasures, fell_behind, measured_launches
from rollout_bench.analysis.timed.pairs import marked_unfair, round_s
from rollout_bench.analysis.timed.points import split
from rollout_bench.analysis.timed.service import at_a_rate
from rollout_bench.core.mappings import grouped
from rollout_bench.numbers.registry import NUMBERS, MetricName
from rollout_bench.plan.config import ComparisonSettings, Precision

OF_THE_MOMENT = {"cpu_steal", "cpu_shared", "memory_pressure"}
"""Flags that invalidate a launch because of a temporary disturbance; the next launch may be undisturbed."""

Wanted = dict[int, int]
"""Number of wanted launches by the `id` of the launched experiment."""


def stop_of(precision: Precision, confidence: float) -> TwoStages:
    """Return the stopping rule for the number of launches under `precision`."""
    return TwoStages(precision.half_width, precision.max_launches, confidence)


def with_enough(
    experiments: Sequence[TimedExperiment],
    baseline: Mapping[str, str],
    comparison: ComparisonSettings,
    precision: Precision,
) -> tuple[TimedExperiment, ...]:
    """Return `experiments` reduced to the launches that are wanted now, given the existing records.

    `_by_spread` computes the number for the first metric of each comparison. For a sweep, the load with the largest
    number counts. The baseline has as many launches as the largest number among its comparisons. An experiment in
    blocks with it has as many as the others, and an uncompared one has the minimum. Records beyond that number are
    left out, so that the rule selects the launches, not the history of measurements.
    """
    parts = split(experiments)
    index = index_by_names(parts)
    limit_s = round_s(experiments)
    compared = [
        _with_pairs_of(part, other, comparison, limit_s)
        for part in parts
        if (other := _partner(part, index, baseline)) is not None
    ]
    wanted = _by_spread(parts, compared, baseline, stop_of(precision, comparison.confidence))
    _even_out(wanted, compared)
    return tuple(_first_launches(experiment, wanted[id(experiment)]) for experiment in experiments)


@dataclass(frozen=True)
class _Compared:
    """An experiment, or a load of a sweep, with its baseline.

    `comparison` has its pairs in the deciding `metric`.
    `launches` are those that both whole experiments have, because an invalid launch may lack this load. `spoilt`
    are launches without a pair for a reason that will affect further launches as well.
    """

    own: TimedExperiment
    other: TimedExperiment
    metric: MetricName
    comparison: Comparison
    launches: frozenset[int]
    spoilt: frozenset[int]

    @property
    def sides(self) -> tuple[TimedExperiment, TimedExperiment]:
        """The two launched experiments."""
        return self.own.whole, self.other.whole

    @property
    def contiguous(self) -> int:
        """Number of existing launches before the first gap."""
        return next(launch for launch in range(len(self.launches) + 1) if launch not in self.launches)

    def enough(self, pairs: int, least: int, most: int) -> int:
        """Return the number of launches that gives `pairs` pairs, if each missing launch makes a pair.

        Launches that made no pair for a reason that will affect further ones are enough as well.
        """
        for launches in range(least, most):
            possible = sum(launch in self.comparison.pairs or launch not in self.launches for launch in range(launches))
            if possible >= pairs or (not possible and self.spoilt.issuperset(range(launches))):
                return launches
        return most


def _by_spread(
    parts: Iterable[TimedExperiment], compared: Sequence[_Compared], baseline: Mapping[str, str], stages: TwoStages
) -> Wanted:
    """Return the wanted launches if the spread of the first launches decides their number (`stats.two_stages`).

    All experiments that are compared with one baseline, by pairs of one way, form a table. At first, all need the
    launches of the first stage; a launch without a pair is replaced by another one. Afterwards each experiment has its
    final number. A missing launch of the first stage may change all numbers, so until then each experiment needs at
    most one more launch than it has. The others do not wait for a failed launch.
    """
    any_name = dict.fromkeys(baseline, "")
    members = grouped((place_of(part, any_name), part) for part in parts)
    tables = grouped(
        ((place_of(each.own, any_name), each.other.place, each.metric, each.comparison.ways), each) for each in compared
    )
    wanted: Wanted = defaultdict(int)
    least = {}
    for place, parts_at in members.items():
        others = sum(not is_baseline(part, baseline) for part in parts_at)
        least[place] = stages.first(others) if 0 < others < len(parts_at) else FIRST
        _raise(wanted, least[place], *(part.whole for part in parts_at))
    for (place, *_), table in tables.items():
        for each in table:
            _raise(wanted, each.enough(least[place], least[place], stages.max_blocks), *each.sides)
    coming = {
        place
        for place, parts_at in members.items()
        if any(launch < wanted[id(part.whole)] for part in parts_at for launch in part.whole.missing)
    }
    for (place, *_), table in tables.items():
        for each, launches in zip(table, _after_first_stage(table, least[place], stages), strict=True):
            _raise(wanted, min(launches, each.contiguous + 1) if place in coming else launches, *each.sides)
    return wanted


def _after_first_stage(table: Sequence[_Compared], least: int, stages: TwoStages) -> list[int]:
    """Return the number of wanted launches for each of `table`, from the spread of the existing first pairs."""
    judged = sum(len(each.comparison.pairs) >= MIN_PAIRS for each in table)
    first = stages.first(judged) if judged else least
    wanted = []
    for each, stage in zip(table, stages.of(log_ratios([each.comparison for each in table]))[1], strict=True):
        pairs = first if len(each.comparison.pairs) >= MIN_PAIRS else least
        pairs = pairs if stage is None else stages.within(stage.needed, judged)
        wanted.append(each.enough(pairs, min(least, first), stages.max_blocks))
    return wanted


def _raise(wanted: Wanted, launches: int, *sides: TimedExperiment) -> None:
    for side in sides:
        wanted[id(side)] = max(wanted[id(side)], launches)


def _even_out(wanted: Wanted, compared: Sequence[_Compared]) -> None:
    """Raise experiments that ran in blocks with their baseline to the largest number among these blocks' members.

    An experiment with a failure within its own number is not raised: each further block would try it again.
    """
    most: Wanted = {}
    interleaved = [
        each
        for each in compared
        if any(record.block is not None and len(record.block.members) > 1 for record in each.own.records)
    ]
    for each in interleaved:
        own, other = map(id, each.sides)
        most[other] = max(most.get(other, 0), wanted[own])
    for each in interleaved:
        own, other = map(id, each.sides)
        if not any(failure.launch < wanted[own] for failure in each.own.whole.failures):
            wanted[own] = max(wanted[own], most[other])


def _partner(
    experiment: TimedExperiment, index: Mapping[Place, Sequence[TimedExperiment]], baseline: Mapping[str, str]
) -> TimedExperiment | None:
    if is_baseline(experiment, baseline) or not experiment.records:
        return None
    other, _ = find_baseline(experiment, index, baseline)
    if other is None or not (valid_records(experiment) and valid_records(other)):
        return other
    return against_baseline(experiment, index, baseline).other  # None if a verdict is impossible


def _with_pairs_of(
    experiment: TimedExperiment, other: TimedExperiment, comparison: ComparisonSettings, limit_s: float
) -> _Compared:
    """Return the pairs of `experiment` and its baseline `other`; `limit_s` as in `marked_unfair`."""
    metrics = comparison.metrics_of(experiment.mode)
    sides = marked_unfair(measured_launches(experiment, compared=metrics), other, limit_s)
    base = measured_launches(other, compared=metrics)
    valid, others = ([launch for launch in side if launch.valid] for side in (sides, base))
    metric = _deciding_metric([*valid, *others], experiment, comparison)
    in_turn = [launch for launch in valid if launch.paired]
    compared = compare_launches(in_turn, others, metric, comparison.confidence)
    return _Compared(
        own=experiment,
        other=other,
        metric=metric,
        comparison=compared,
        launches=frozenset({r.launch for r in experiment.whole.records} & {r.launch for r in other.whole.records}),
        spoilt=frozenset(
            launch.launch
            for launch in (*sides, *base)
            if any(flag.severity == "invalid" and flag.code not in OF_THE_MOMENT for flag in launch.flags)
        ),
    )


def _deciding_metric(
    launches: Sequence[LaunchMeasures], experiment: TimedExperiment, comparison: ComparisonSettings
) -> MetricName:
    """Return the first metric that the load does not determine; a determined one is precise but meaningless."""
    metrics = comparison.metrics_of(experiment.mode)
    if not at_a_rate(experiment.point) or fell_behind(launches):
        return metrics[0]
    return next((metric for metric in metrics if not NUMBERS[metric].set_by_load), metrics[0])


def _first_launches(experiment: TimedExperiment, launches: int) -> TimedExperiment:
    return replace(
        experiment,
        planned=launches,
        records=tuple(record for record in experiment.records if record.launch < launches),
        failures=tuple(failure for failure in experiment.failures if failure.launch < launches),
        missing=tuple(launch for launch in experiment.missing if launch < launches),
        damaged=tuple(damaged for damaged in experiment.damaged if damaged.launch < launches),
    )
