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
class Earlier:
    """Experiments that the selected ones are compared with though they did not take turns.

    `name` and `of` are what messages call these and the selected ones, `engine` the version of all of these where
    that is what was asked for. Of the groups engine and machine those in `differ` may differ; empty: any one of them.
    Where there is nothing, `problem` says why.
    """

    name: str
    experiments: tuple[Experiment, ...] = ()
    of: str = "what is selected"
    engine: str = ""
    differ: tuple[str, ...] = ()
    problem: str = ""

    def is_own(self, experiment: Experiment) -> bool:
        """Whether `experiment`, which is measured, ran in the very engine that it is to be compared with."""
        return bool(self.engine) and experiment.records[0].spec.engine.version == self.engine


@dataclass(frozen=True)
class Collection:
    """Everything that one summary or figure is made from.

    `precision` says when an experiment has launches enough, None where their number is fixed.
    `beyond_planned` counts records of selected experiments whose launch index is not planned,
    `not_selected` those of other experiments; neither are read. `earlier` is what speed-ups refer to where it
    is not among the experiments.
    """

    experiments: tuple[Experiment, ...]
    baseline: dict[str, str]
    comparison: ComparisonSettings
    precision: Precision | None
    skipped: tuple[Skipped, ...]
    planned: bool
    beyond_planned: int
    not_selected: int
    earlier: Earlier | None = None

    @property
    def complete(self) -> bool:
        """True when no launch is missing and none has failed."""
        return not any(experiment.missing or experiment.failures for experiment in self.experiments)
