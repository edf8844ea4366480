"""What a quantization trades: how much faster it is than a baseline, and how far it drifts from a reference for that.

The baseline is the reference, where that was timed. A reference in float32 is not: there the baseline is the same
quantization as it is usually computed, which drifts from the reference itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from rollout_bench.analysis.inside.drifts import Drifted, DriftReport
from rollout_bench.analysis.stats.intervals import mean, same_share_p
from rollout_bench.analysis.timed.comparison import Comparison
from rollout_bench.analysis.timed.experiments import Chosen
from rollout_bench.analysis.timed.launches import values_of
from rollout_bench.analysis.timed.rows import Row
from rollout_bench.contracts.axes import DEFAULT_SETTING, names_of
from rollout_bench.contracts.metrics import MetricName
from rollout_bench.contracts.modes import OFFLINE, ROLLOUT

MODES = (OFFLINE.name, ROLLOUT.name)
"""Whose throughput is the engine's own, and no load's."""

SPEEDS: tuple[MetricName, ...] = ("output_tokens_per_s", "output_tokens_per_s_per_device")
"""What tells how fast it is, the first that is compared."""

ENERGY: MetricName = "energy_j_per_token"

Answers = tuple[int, int]
"""Problems that were answered rightly, of how many."""

Choice = Literal["free", "costly", "none"]


@dataclass(frozen=True)
class Trade:
    """One experiment that was timed and whose drift is known.

    Attributes:
        row: as it was timed.
        speed: its comparison with the baseline.
        metric: what is compared there.
        drifted: how far it is from the reference, with the largest batch; of the reference itself its floor. None
            where a baseline has no floor, or was not scored.
        answers: of a model that the project trained.
        elsewhere: another batch or direction in which it drifts, where it does not in `drifted`; else None.
    """

    row: Row
    speed: Comparison
    metric: MetricName
    drifted: Drifted | None
    answers: Answers | None
    elsewhere: Drifted | None = None

    @property
    def worst(self) -> Drifted | None:
        """What decides whether it drifts: it does where it does with any batch, in any direction that was measured."""
        return self.elsewhere or self.drifted

    @property
    def free(self) -> bool:
        """Whether no drift beyond the floor was found, of all that was scored."""
        return self.worst is not None and self.worst.drifts is False

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
    """All that was held against one baseline in speed, and against one reference in drift.

    Attributes:
        baseline: what speed-ups are relative to.
        reference: what sampled the tokens, and drift is from.
        floor: how far the reference is from itself; None where it was scored only once.
        others: the quantizations and settings of the same model, in the order of the config.
        confidence: with which answers differ.
    """

    baseline: Trade
    reference: Chosen
    floor: Drifted | None
    others: tuple[Trade, ...]
    confidence: float

    @property
    def name(self) -> str:
        """Model and workload."""
        own = self.baseline.row.experiment
        return f"{own.model} {own.workload}"

    @property
    def of_reference(self) -> bool:
        """Whether the baseline of speed is the reference of drift, too."""
        return names_of(self.baseline.row.experiment) == names_of(self.reference.experiment)

    @property
    def drifting(self) -> tuple[Trade, ...]:
        """All whose drift from the reference is known; the baseline first, where that is not the reference itself."""
        first = () if self.of_reference or self.baseline.drifted is None else (self.baseline,)
        return (*first, *self.others)

    @property
    def choice(self) -> Choice:
        """What there is to choose: something faster that costs nothing, something faster that does, or nothing.

        Drift is a cost, and so are fewer right answers than the baseline's.
        """
        fast = [one for one in self.others if one.faster]
        if any(self._costs_nothing(one) for one in fast):
            return "free"
        return "costly" if fast else "none"

    @property
    def chosen(self) -> list[Trade]:
        """What that is, the fastest first."""
        fast = [one for one in self.others if one.faster]
        if self.choice == "free":
            fast = [one for one in fast if self._costs_nothing(one)]
        return sorted(fast, key=lambda one: -(one.speed.speedup or 0.0))

    def _costs_nothing(self, one: Trade) -> bool:
        return one.free and not self.answers_fewer(one)

    def answers_fewer(self, one: Trade) -> bool:
        """Return whether it surely answers a smaller share of problems rightly than the baseline."""
        if one.answers is None or self.baseline.answers is None or not self.answers_differ(one):
            return False
        (right, judged), (base_right, base_judged) = one.answers, self.baseline.answers
        return right * base_judged < base_right * judged

    def answers_differ(self, one: Trade) -> bool | None:
        """Return whether it surely answers another share of problems rightly than the baseline; None where unknown."""
        if one.answers is None or self.baseline.answers is None:
            return None
        return same_share_p(*one.answers, *self.baseline.answers) < 1 - self.confidence


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
        floor = report.floor_of(own[0])
        for mode in MODES:
            timed = [row for row in rows if row.experiment.mode == mode and row.used]
            base = _baseline(timed, reference)
            if base is None:
                continue
            others = tuple(_trades(timed, base, own, [one for one in report.own if one.reference.place == place]))
            if others:
                metric = others[0].metric
                if names_of(base.experiment) == names_of(reference.experiment):
                    drifted, answers = floor, next((one.accuracy for one in own if one.of_reference), None)
                else:
                    drifted = _largest_of(base, own)
                    answers = None if drifted is None else drifted.accuracy
                kept = Trade(base, base.comparisons[metric], metric, drifted, answers)
                found.append(TradeOff(kept, reference, floor, others, confidence))
    return found


def _baseline(timed: Sequence[Row], reference: Chosen) -> Row | None:
    """Return what speed-ups are relative to: the reference, or what it is usually where it was not timed itself."""
    names = (names_of(reference.experiment), names_of(reference.experiment, {"setting": DEFAULT_SETTING}))
    for wanted in names:
        found = [row for row in timed if names_of(row.experiment) == wanted]
        if found:
            return found[0] if len(found) == 1 and found[0].experiment.part is None else None
    return None


def _trades(
    timed: Sequence[Row], base: Row, own: Sequence[Drifted], on_own_tokens: Sequence[Drifted]
) -> Iterator[Trade]:
    """Yield those of `timed` that were compared with `base`, and are among `own`, with the largest batch of these.

    Where that does not drift, but does with another batch or `on_own_tokens`, it is told as well.
    """
    for row in timed:
        if row is base or row.against.other is None or row.against.other.place != base.experiment.place:
            continue
        metric = next((name for name in SPEEDS if name in row.comparisons and name in base.comparisons), None)
        drifted = _largest_of(row, own)
        if metric is not None and drifted is not None and row.comparisons[metric].speedup is not None:
            drifting = [] if drifted.drifts else [one for one in _of(row, [*own, *on_own_tokens]) if one.drifts]
            elsewhere = max(drifting, key=lambda one: one.found.size.value, default=None)
            yield Trade(row, row.comparisons[metric], metric, drifted, drifted.accuracy, elsewhere)


def _of(row: Row, own: Sequence[Drifted]) -> list[Drifted]:
    """Return those of `own` that are what `row` has timed, scored by an engine; none for the reference itself."""
    return [
        one
        for one in own
        if not one.of_reference
        and one.batch is not None
        and names_of(one.chosen.experiment) == names_of(row.experiment)
    ]


def _largest_of(row: Row, own: Sequence[Drifted]) -> Drifted | None:
    """Return that of `own` which is what `row` has timed, with the largest batch; None for the reference itself."""
    mine = _of(row, own)
    if len({one.chosen.place for one in mine}) > 1:
        return None
    return max(mine, key=lambda one: one.batch or 0, default=None)
