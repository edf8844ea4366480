"""Everything that tables, notes and figures show of a set of profiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from rollout_bench.analysis.profiles.breakdown import Breakdown, breakdowns
from rollout_bench.analysis.profiles.profiled import LeftOut, Profiled
from rollout_bench.analysis.profiles.reasons import reasons
from rollout_bench.analysis.profiles.reconciliation import Reconciliation, reconcile
from rollout_bench.plan.comparing import ComparisonSettings
from rollout_bench.records.profile import Phase


@dataclass(frozen=True, eq=False)
class ProfileReport:
    """`profiled` in order, the phases of each by its place, and a reconciliation for each that has a baseline.

    `left_out` are those without a valid launch. `uncompared` are those that have a baseline and no reconciliation,
    since they are left out themselves or their baseline is, each with the reason.
    """

    profiled: tuple[Profiled, ...]
    phases: Mapping[str, Mapping[Phase, Breakdown]]
    reconciliations: tuple[Reconciliation, ...]
    settings: ComparisonSettings
    left_out: tuple[LeftOut, ...] = ()
    uncompared: tuple[tuple[Profiled | LeftOut, str], ...] = ()

    def of(self, profiled: Profiled) -> Mapping[Phase, Breakdown]:
        """The phases of one of them."""
        return self.phases[profiled.place]

    @property
    def pairs(self) -> list[tuple[Profiled, Profiled]]:
        """Each that is compared, and with what."""
        return [(found.own, found.baseline) for found in self.reconciliations]


def profile_report(
    profiled: Sequence[Profiled], settings: ComparisonSettings, left_out: Sequence[LeftOut] = ()
) -> ProfileReport:
    """Analyses `profiled`; what one is compared with must be among them, or it is not compared."""
    by_place = {each.place: each for each in profiled}
    without = {each.place: each for each in left_out}
    if len(by_place | without) < len(profiled) + len(left_out):
        raise ValueError("two profiles have the same place")
    phases = {each.place: breakdowns(each) for each in profiled}
    found = []
    for own in profiled:
        baseline = by_place.get(own.baseline or "")
        if baseline is not None and baseline is not own:
            sides = phases[own.place], phases[baseline.place]
            reconciled = reconcile(own, baseline, *sides, settings)
            found.append(replace(reconciled, reasons=reasons(reconciled, *sides)))
    uncompared: list[tuple[Profiled | LeftOut, str]] = [
        (own, f"{left.quant}: {left.reason}")
        for own in profiled
        if (left := without.get(own.baseline or "")) is not None
    ]
    uncompared += [(each, each.reason) for each in left_out if each.baseline in by_place | without]
    return ProfileReport(tuple(profiled), phases, tuple(found), settings, tuple(left_out), tuple(uncompared))
