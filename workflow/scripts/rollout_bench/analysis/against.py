"""What an experiment is compared with, or why with nothing; for sides that took turns, the baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rollout_bench.analysis.baselines import Names, find_baseline, is_baseline
from rollout_bench.analysis.comparison import Comparison
from rollout_bench.analysis.experiments import Experiment
from rollout_bench.analysis.facts import Difference, pair_differences
from rollout_bench.analysis.validity import no_valid_launch
from rollout_bench.records.record import Record


@dataclass(frozen=True)
class Against:
    """The `other` experiment; where there is none, `instead` stands in place of a comparison.

    `differences` are facts in which the two differ, though they may be compared.
    """

    other: Experiment | None = None
    instead: Comparison = field(default_factory=Comparison)
    differences: tuple[Difference, ...] = ()


def valid_records(experiment: Experiment) -> list[Record]:
    """The launches of `experiment` that take part in comparisons."""
    return [record for record in experiment.records if record.valid]


def why_not_measured(experiment: Experiment) -> str:
    """Why `experiment` has nothing to compare; empty where it has."""
    return no_valid_launch(experiment.records) if experiment.records else "not measured"


def against_baseline(
    experiment: Experiment, index: Mapping[Names, Sequence[Experiment]], baseline: Mapping[str, str]
) -> Against:
    """What `experiment` is compared with in pairs of launches: its baseline among those in `index`."""
    if is_baseline(experiment, baseline):
        return Against(instead=Comparison(is_baseline=True))
    reason = why_not_measured(experiment)
    if reason:
        return Against(instead=Comparison(reason=reason))
    other, reason = find_baseline(experiment, index, baseline)
    if other is None:
        return Against(instead=Comparison(reason=reason))
    reason = why_not_measured(other)
    if reason:
        return Against(instead=Comparison(reason=f"its baseline has {reason}"))
    between_platforms = "platform" in baseline
    mixed = _mixed_engines(experiment, other, across=not between_platforms)
    if mixed:
        reason = f"its launches or its baseline's ran in different engines: {mixed}"
        return Against(instead=Comparison(verdict="unknown", reason=reason))
    if between_platforms:
        return Against(other)
    differing = pair_differences(valid_records(experiment), valid_records(other))
    for launch, difference in differing:
        if difference.fact != "hostname":
            reason = (
                f"launch {launch} and its partner in the baseline ran on unlike machines or engines: "
                f"{difference.fact} {difference.own} against {difference.other}"
            )
            return Against(instead=Comparison(verdict="unknown", reason=reason))
    return Against(other, differences=tuple(dict.fromkeys(difference for _, difference in differing)))


def _mixed_engines(one: Experiment, other: Experiment, across: bool) -> str:
    """The engines that the valid launches found where they ran, if not all ran in one; across both sides or in each."""
    sides = [_engines(one), _engines(other)]
    if across:
        sides = [sides[0] | sides[1]]
    return ", ".join(sorted(next((side for side in sides if len(side) > 1), set())))


def _engines(experiment: Experiment) -> set[str]:
    return {
        " ".join([r.environment.engine_name, r.environment.engine_version, *map(" ".join, sorted(plugins.items()))])
        for r in valid_records(experiment)
        for plugins in (r.environment.plugins,)
    }
