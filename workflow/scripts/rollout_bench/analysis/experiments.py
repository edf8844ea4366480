"""What a summary is made from, as data: the selected experiments with their records and failures."""

from __future__ import annotations

from dataclasses import dataclass

from rollout_bench.plan.comparing import ComparisonSettings, Precision
from rollout_bench.plan.planfile import Skipped
from rollout_bench.records.record import Failure, Record


@dataclass(frozen=True)
class Experiment:
    """One experiment with what became of its launches.

    `planned` is the number of launches wanted, None where no plan says it. `records` and `failures`
    are in the order of their launch; a launch has at most one of the two; `missing` has neither.
    """

    mode: str
    experiment: str
    key: str
    platform: str
    model: str
    quant: str
    workload: str
    planned: int | None
    records: tuple[Record, ...]
    failures: tuple[Failure, ...]
    missing: tuple[int, ...]


@dataclass(frozen=True)
class Collection:
    """Everything that one summary or figure is made from.

    `precision` says when an experiment has launches enough, None where their number is fixed.
    `beyond_planned` counts records of selected experiments whose launch index is not planned,
    `not_selected` those of other experiments; neither are read.
    """

    experiments: tuple[Experiment, ...]
    baseline: dict[str, str]
    comparison: ComparisonSettings
    precision: Precision | None
    skipped: tuple[Skipped, ...]
    planned: bool
    beyond_planned: int
    not_selected: int

    @property
    def complete(self) -> bool:
        """True when no launch is missing and none has failed."""
        return not any(experiment.missing or experiment.failures for experiment in self.experiments)
