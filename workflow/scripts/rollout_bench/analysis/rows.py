"""One row per experiment: its launches in numbers and its comparisons with the baseline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from rollout_bench.analysis.against import Against, against_baseline
from rollout_bench.analysis.apart import against_earlier
from rollout_bench.analysis.baselines import check_axes, index_by_names
from rollout_bench.analysis.comparison import Comparison, compare, compare_apart, judge
from rollout_bench.analysis.experiments import Collection, Experiment
from rollout_bench.analysis.launches import LaunchMeasures, measure
from rollout_bench.analysis.metrics import METRICS
from rollout_bench.analysis.outliers import marked
from rollout_bench.analysis.sequential import Looks
from rollout_bench.analysis.turns import marked_out_of_turn, round_s
from rollout_bench.plan.fields import Metric

Measured = Mapping[str, tuple[LaunchMeasures, ...]]
"""The launches of each experiment, by its mode and folder name."""


@dataclass(frozen=True)
class Row:
    """An experiment with its numbers.

    `launches` are all that were measured. `used` are those that its means are taken over: the valid
    ones, or all of them where none is valid, and then `valid` is False. `quant_label` is the quant's
    name, with the key where two experiments differ in nothing else that a table shows. `comparisons` has
    at least one metric, in the order of the config; `against` is what they compare with.
    """

    experiment: Experiment
    quant_label: str
    launches: tuple[LaunchMeasures, ...]
    comparisons: Mapping[Metric, Comparison]
    against: Against

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
    measured = _measured(experiments)
    others = measured
    if collection.earlier is not None:
        found = against_earlier(experiments, collection.earlier)
        others = _measured(collection.earlier.experiments)
    else:
        index = index_by_names(experiments)
        found = [against_baseline(e, index, collection.baseline) for e in experiments]
        measured = _marked_out_of_turn(measured, experiments, found)
    pairs = list(zip(experiments, found, strict=True))
    compared = {
        metric: _judged([_comparison(e, other, measured, others, collection, metric) for e, other in pairs], collection)
        for metric in collection.comparison.metrics
    }
    shown = Counter(_shown(e) for e in experiments)
    return [
        Row(
            experiment=e,
            quant_label=e.quant if shown[_shown(e)] == 1 else f"{e.quant} ({e.key})",
            launches=measured[_place(e)],
            comparisons={metric: compared[metric][number] for metric in compared},
            against=found[number],
        )
        for number, e in enumerate(experiments)
    ]


def _measured(experiments: Sequence[Experiment]) -> Measured:
    return {_place(e): marked([measure(record) for record in e.records]) for e in experiments}


def _marked_out_of_turn(
    measured: Measured, experiments: Sequence[Experiment], found: Sequence[Against]
) -> dict[str, tuple[LaunchMeasures, ...]]:
    """`measured` with a flag on the launches that did not take turns with their partners."""
    marked_so = dict(measured)
    for mode, platform in dict.fromkeys((e.mode, e.platform) for e in experiments):
        table = [(e, a) for e, a in zip(experiments, found, strict=True) if (e.mode, e.platform) == (mode, platform)]
        limit_s = round_s([e for e, _ in table])
        for experiment, against in table:
            if against.other is not None:
                place = _place(experiment)
                marked_so[place] = marked_out_of_turn(measured[place], experiment, against.other, limit_s)
    return marked_so


def _judged(found: Sequence[Comparison], collection: Collection) -> list[Comparison]:
    """The comparison of each experiment in one metric; those that stand in one table are judged together."""
    judged = list(found)
    experiments = collection.experiments
    for table in dict.fromkeys((e.mode, e.platform) for e in experiments):
        places = [number for number, e in enumerate(experiments) if (e.mode, e.platform) == table]
        family = judge([found[number] for number in places], collection.comparison, _looks(collection))
        for number, comparison in zip(places, family, strict=True):
            judged[number] = comparison
    return judged


def _comparison(
    experiment: Experiment,
    against: Against,
    measured: Measured,
    others: Measured,
    collection: Collection,
    metric: Metric,
) -> Comparison:
    if against.other is None:
        return against.instead
    of = METRICS[metric]
    valid = [launch for launch in measured[_place(experiment)] if launch.valid]
    own = {launch.launch: of.value(launch) for launch in valid if launch.in_turn}
    wanted = _wanted(others[_place(against.other)], experiment, collection)
    theirs = {launch.launch: of.value(launch) for launch in wanted if launch.valid}
    confidence = collection.comparison.confidence
    if collection.earlier is not None:
        return compare_apart(own, theirs, confidence, of.higher_is_better)
    out_of_turn = len(valid) - len(own)
    reason = (
        f"{out_of_turn} of its {len(valid)} launches did not take turns with the baseline's; raise launches, and the "
        "further ones do"
    )
    if not own:
        return Comparison(verdict="unknown", reason=reason)
    compared = compare(own, theirs, confidence, of.higher_is_better, _looks(collection))
    return replace(compared, reason=reason) if out_of_turn and compared.launches_missing else compared


def _wanted(
    theirs: Sequence[LaunchMeasures], experiment: Experiment, collection: Collection
) -> Sequence[LaunchMeasures]:
    """`theirs` without those that the baseline needs for other comparisons alone, where precision says how many."""
    if collection.precision is None or collection.earlier is not None or experiment.planned is None:
        return theirs
    return [launch for launch in theirs if launch.launch < experiment.planned]


def _looks(collection: Collection) -> Looks | None:
    precision = collection.precision
    return None if precision is None else Looks(precision.min_launches, precision.max_launches)


def _place(experiment: Experiment) -> str:
    return f"{experiment.mode}/{experiment.experiment}"


def _shown(experiment: Experiment) -> tuple[str, ...]:
    return experiment.mode, experiment.platform, experiment.model, experiment.quant, experiment.workload
