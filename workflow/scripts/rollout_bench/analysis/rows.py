"""One row per experiment: its launches in numbers and its comparison with the baseline."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from rollout_bench.analysis.baselines import check_axes, find_baseline, index_by_names, is_baseline
from rollout_bench.analysis.collection import Collection, Experiment
from rollout_bench.analysis.comparison import Comparison, compare
from rollout_bench.analysis.launches import LaunchMeasures, measure
from rollout_bench.analysis.outliers import marked


@dataclass(frozen=True)
class Row:
    """An experiment with its numbers.

    `launches` are all that were measured. `used` are those that its means are taken over: the valid
    ones, or all of them where none is valid, and then `valid` is False. `quant_label` is the quant's
    name, with the key where two experiments differ in nothing else that a table shows.
    """

    experiment: Experiment
    quant_label: str
    launches: tuple[LaunchMeasures, ...]
    comparison: Comparison

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
    measures = {id(e): marked([measure(record) for record in e.records]) for e in collection.experiments}
    throughputs = {
        id(e): {m.launch: m.output_tokens_per_s for m in measures[id(e)] if m.valid} for e in collection.experiments
    }
    index = index_by_names(collection.experiments)
    shown = Counter(_shown(e) for e in collection.experiments)

    def comparison(experiment: Experiment) -> Comparison:
        if is_baseline(experiment, collection.baseline):
            return Comparison(is_baseline=True)
        own = throughputs[id(experiment)]
        if not own:
            return Comparison(reason="no valid launch" if experiment.records else "not measured")
        other, reason = find_baseline(experiment, index, collection.baseline)
        if other is None:
            return Comparison(reason=reason)
        if not throughputs[id(other)]:
            return Comparison(reason="its baseline has no valid launch")
        return compare(own, throughputs[id(other)])

    return [
        Row(
            experiment=e,
            quant_label=e.quant if shown[_shown(e)] == 1 else f"{e.quant} ({e.key})",
            launches=measures[id(e)],
            comparison=comparison(e),
        )
        for e in collection.experiments
    ]


def _shown(experiment: Experiment) -> tuple[str, ...]:
    return experiment.mode, experiment.platform, experiment.model, experiment.quant, experiment.workload
