"""The launches that count in modes that look into the engine: the valid ones.

All that tables and figures show of these modes is made from `Chosen`. What is left out of them is seen in the flags.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from rollout_bench.analysis.experiments import Selected
from rollout_bench.analysis.validity import no_valid_launch
from rollout_bench.records.record import Launched


@dataclass(frozen=True)
class Chosen:
    """A measured experiment with those of its launches that count.

    `experiment` has the records of its valid launches alone. Where there is none, `reason` says why; else it is empty.
    `label` is its quant, with the key where another measured experiment has the same names.
    """

    experiment: Selected[Launched]
    label: str
    reason: str = ""

    @property
    def place(self) -> str:
        """Where it lies; no other has the same."""
        return f"{self.experiment.mode}/{self.experiment.experiment}"

    @property
    def table(self) -> tuple[str, str, str]:
        """Platform, model and workload: what stands side by side."""
        return self.experiment.platform, self.experiment.model, self.experiment.workload


def chosen(experiments: Iterable[Selected[Launched]]) -> list[Chosen]:
    """Those of `experiments` that were measured, in their order, cut down to their valid launches."""
    measured = [experiment for experiment in experiments if experiment.records]
    named = Counter(map(_names, measured))
    return [
        Chosen(
            experiment=replace(each, records=tuple(record for record in each.records if record.valid)),
            label=each.quant if named[_names(each)] == 1 else f"{each.quant} ({each.key})",
            reason=no_valid_launch(each.records),
        )
        for each in measured
    ]


def _names(experiment: Selected[Launched]) -> tuple[str, ...]:
    return experiment.mode, experiment.platform, experiment.model, experiment.quant, experiment.workload
