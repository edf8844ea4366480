"""What a quantization trades: how much faster it is than the reference, and how far it drifts from it for that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from rollout_bench.analysis.inside.drifts import Drifted, DriftReport
from rollout_bench.analysis.stats.intervals import mean, same_share_p
from rollout_bench.analysis.timed.comparison import Comparison
from rollout_bench.analysis.timed.launches import values_of
from rollout_bench.analysis.timed.rows import Row
from rollout_bench.contracts.axes import names_of
from rollout_bench.contracts.metrics import MetricName
from rollout_bench.contracts.modes import OFFLINE, ROLLOUT

MODES = (OFFLINE.name, ROLLOUT.name)
"""Whose throughput is the engine's own, and no load's."""

SPEEDS: tuple[MetricName, ...] = ("output_tokens_per_s", "output_tokens_per_s_per_device")
"""What tells how fast it is, the first that is compared."""

ENERGY: MetricName = "energy_j_per_token"

Answers = tuple[int, int]
"""Problems that were answered rightly, of how many."""

Choice = Literal["free", "drifting", "none"]


@dataclass(frozen=True)
class Trade:
    """One experiment that was timed and whose drift is known.

    Attributes:
        row: as it was timed.
        speed: its comparison with the reference.
        metric: what is compared there.
        drifted: how far it is from the reference, with the largest batch; of the reference itself its floor, None
            without one.
        answers: of a model that the project trained.
    """

    row: Row
    speed: Comparison
    metric: MetricName
    drifted: Drifted | None
    answers: Answers | None

    @property
    def label(self) -> str:
        """What tells it from the others it stands beside."""
        return self.row.label

    @property
    def faster(self) -> bool:
        """Whether it surely is."""
        return self.speed.verdict == "faster"

    @property
    def energy_j_per_token(self) -> float | None:
        """Mean over its launches; None where it is not known."""
        found = values_of(ENERGY, self.row.used)
        return mean(list(found.values())) if found else None


@dataclass(frozen=True)
class TradeOff:
    """All that was held against one reference, in speed and in drift.

    Attributes:
        reference: the one that sampled the tokens, and that speed-ups are relative to.
        others: the quantizations and settings of the same model, in the order of the config.
        confidence: with which answers differ.
    """

    reference: Trade
    others: tuple[Trade, ...]
    confidence: float

    @property
    def name(self) -> str:
        """Model and workload."""
        own = self.reference.row.experiment
        return f"{own.model} {own.workload}"

    @property
    def choice(self) -> Choice:
        """What there is to choose: something faster that does not drift, something faster that does, or nothing."""
        fast = [one for one in self.others if one.faster]
        if any(one.drifted is not None and one.drifted.drifts is False for one in fast):
            return "free"
        return "drifting" if fast else "none"

    @property
    def chosen(self) -> list[Trade]:
        """What that is, the fastest first."""
        fast = [one for one in self.others if one.faster]
        if self.choice == "free":
            fast = [one for one in fast if one.drifted is not None and one.drifted.drifts is False]
        return sorted(fast, key=lambda one: -(one.speed.speedup or 0.0))

    def answers_differ(self, one: Trade) -> bool | None:
        """Return whether it surely answers another share of problems rightly; None where nobody can say."""
        if one.answers is None or self.reference.answers is None:
            return None
        return same_share_p(*one.answers, *self.reference.answers) < 1 - self.confidence


def trade_offs(rows: Sequence[Row], report: DriftReport, confidence: float) -> list[TradeOff]:
    """Return what was both timed, in a mode whose throughput is its own, and scored, by reference and mode.

    Args:
        rows: as tables or figures call them.
        report: of drift.
        confidence: with which answers differ.
    """
    found = []
    references = {one.reference.place: one.reference for one in report.drifted}
    for place, reference in references.items():
        own = [one for one in report.drifted if one.reference.place == place]
        for mode in MODES:
            timed = [row for row in rows if row.experiment.mode == mode and row.used]
            base = [row for row in timed if names_of(row.experiment) == names_of(reference.experiment)]
            if len(base) != 1 or base[0].experiment.part is not None:
                continue
            others = tuple(_trades(timed, base[0], own))
            if others:
                metric = others[0].metric
                answers = next((one.accuracy for one in own if one.of_reference), None)
                kept = Trade(base[0], base[0].comparisons[metric], metric, report.floor_of(own[0]), answers)
                found.append(TradeOff(kept, others, confidence))
    return found


def _trades(timed: Sequence[Row], base: Row, own: Sequence[Drifted]) -> Iterator[Trade]:
    """Yield those of `timed` that were compared with `base`, and are among `own`, with the largest batch of these."""
    for row in timed:
        if row.against.other is None or row.against.other.place != base.experiment.place:
            continue
        mine = [
            one
            for one in own
            if not one.of_reference
            and one.batch is not None
            and names_of(one.chosen.experiment) == names_of(row.experiment)
        ]
        metric = next((name for name in SPEEDS if name in row.comparisons and name in base.comparisons), None)
        if metric is None or not mine or len({one.chosen.place for one in mine}) > 1:
            continue
        if row.comparisons[metric].speedup is not None:
            drifted = max(mine, key=lambda one: one.batch or 0)
            yield Trade(row, row.comparisons[metric], metric, drifted, drifted.accuracy)
