"""One row per experiment: its launches in numbers and its comparisons with the baseline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rollout_bench.analysis.baselines import Names, check_axes, find_baseline, index_by_names, is_baseline
from rollout_bench.analysis.comparison import Comparison, compare, judge
from rollout_bench.analysis.experiments import Collection, Experiment
from rollout_bench.analysis.launches import LaunchMeasures, measure
from rollout_bench.analysis.metrics import METRICS
from rollout_bench.analysis.outliers import marked
from rollout_bench.analysis.sequential import Looks
from rollout_bench.plan.fields import Metric

Measured = Mapping[str, tuple[LaunchMeasures, ...]]
"""The launches of each experiment, by its mode and folder name."""


@dataclass(frozen=True)
class Row:
    """An experiment with its numbers.

    `launches` are all that were measured. `used` are those that its means are taken over: the valid
    ones, or all of them where none is valid, and then `valid` is False. `quant_label` is the quant's
    name, with the key where two experiments differ in nothing else that a table shows. `comparisons` has
    at least one metric, in the order of the config.
    """

    experiment: Experiment
    quant_label: str
    launches: tuple[LaunchMeasures, ...]
    comparisons: Mapping[Metric, Comparison]

    @property
    def comparison(self) -> Comparison:
        """That of the first metric."""
        return next(iter(self.comparisons.values()))

    @property
    def valid(self) -> bool:
        """True when some launch may take part in comparisons."""
        return any(launch.valid for launch in self.launches)

    @property
    def used(self) -> tuple[LaunchMeasures, ...]:
        """The launches that means are taken over."""
        return tuple(launch for launch in self.launches if launch.valid or not self.valid)

    @property
    def name(self) -> str:
        """What a message calls it: model, quant and workload."""
        return f"{self.experiment.model} {self.quant_label} {self.experiment.workload}"


def rows_of(collection: Collection) -> list[Row]:
    """The rows of `collection` in its order; raises `UserError` where the baseline's axes are unknown."""
    check_axes(collection.baseline)
    experiments = collection.experiments
    measured = {_place(e): marked([measure(record) for record in e.records]) for e in experiments}
    index = index_by_names(experiments)
    compared = {metric: _compared(collection, measured, index, metric) for metric in collection.comparison.metrics}
    shown = Counter(_shown(e) for e in experiments)
    return [
        Row(
            experiment=e,
            quant_label=e.quant if shown[_shown(e)] == 1 else f"{e.quant} ({e.key})",
            launches=measured[_place(e)],
            comparisons={metric: compared[metric][number] for metric in compared},
        )
        for number, e in enumerate(experiments)
    ]


def _compared(
    collection: Collection, measured: Measured, index: Mapping[Names, Sequence[Experiment]], metric: Metric
) -> list[Comparison]:
    """The comparison of each experiment in `metric`; those that stand in one table are judged together."""
    experiments = collection.experiments
    found = [_comparison(e, collection, measured, index, metric) for e in experiments]
    for table in dict.fromkeys((e.mode, e.platform) for e in experiments):
        places = [number for number, e in enumerate(experiments) if (e.mode, e.platform) == table]
        judged = judge([found[number] for number in places], collection.comparison, _looks(collection))
        for number, comparison in zip(places, judged, strict=True):
            found[number] = comparison
    return found


def _comparison(
    experiment: Experiment,
    collection: Collection,
    measured: Measured,
    index: Mapping[Names, Sequence[Experiment]],
    metric: Metric,
) -> Comparison:
    if is_baseline(experiment, collection.baseline):
        return Comparison(is_baseline=True)
    own = [launch for launch in measured[_place(experiment)] if launch.valid]
    if not own:
        return Comparison(reason="no valid launch" if experiment.records else "not measured")
    other, reason = find_baseline(experiment, index, collection.baseline)
    if other is None:
        return Comparison(reason=reason)
    theirs = [launch for launch in _wanted(measured[_place(other)], experiment, collection) if launch.valid]
    if not theirs:
        return Comparison(reason="its baseline has no valid launch")
    mixed = _mixed_engines(experiment, other, across="platform" not in collection.baseline)
    if mixed:
        return Comparison(verdict="unknown", reason=f"its launches or its baseline's ran in different engines: {mixed}")
    of = METRICS[metric]
    return compare(
        {launch.launch: of.value(launch) for launch in own},
        {launch.launch: of.value(launch) for launch in theirs},
        collection.comparison.confidence,
        of.higher_is_better,
        _looks(collection),
    )


def _wanted(
    theirs: Sequence[LaunchMeasures], experiment: Experiment, collection: Collection
) -> Sequence[LaunchMeasures]:
    """`theirs` without those that the baseline needs for other comparisons alone, where precision says how many."""
    if collection.precision is None or experiment.planned is None:
        return theirs
    return [launch for launch in theirs if launch.launch < experiment.planned]


def _looks(collection: Collection) -> Looks | None:
    precision = collection.precision
    return None if precision is None else Looks(precision.min_launches, precision.max_launches)


def _mixed_engines(one: Experiment, other: Experiment, across: bool) -> str:
    """The engines that the valid launches found where they ran, if not all ran in one; across both sides or in each."""
    sides = [_engines(one), _engines(other)]
    if across:
        sides = [sides[0] | sides[1]]
    return ", ".join(sorted(next((side for side in sides if len(side) > 1), set())))


def _engines(experiment: Experiment) -> set[str]:
    return {
        " ".join([r.environment.engine_name, r.environment.engine_version, *map(" ".join, sorted(plugins.items()))])
        for r in experiment.records
        for plugins in (r.environment.plugins,)
        if all(flag.severity != "invalid" for flag in r.validity)
    }


def _place(experiment: Experiment) -> str:
    return f"{experiment.mode}/{experiment.experiment}"


def _shown(experiment: Experiment) -> tuple[str, ...]:
    return experiment.mode, experiment.platform, experiment.model, experiment.quant, experiment.workload
