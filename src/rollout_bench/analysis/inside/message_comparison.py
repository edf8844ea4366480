"""The time of messages in a decode step beside that of a baseline, with the verdicts of timed modes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rollout_bench.analysis.inside.message_shares import LaunchShare, RunShares
from rollout_bench.analysis.timed.comparison import Comparison, compare, compare_apart, judge
from rollout_bench.contracts.axes import names_of
from rollout_bench.plan.config import ComparisonSettings


@dataclass(frozen=True)
class ComparedMessages:
    """How the messages of an experiment compare with those of its baseline at one batch; `comparison` above 1: faster.

    Compared is the median time between core and workers in a decode step, launch by launch.
    """

    shares: RunShares
    baseline: RunShares
    batch: int
    comparison: Comparison


def compared_messages(
    shares: Sequence[RunShares],
    baseline: Mapping[str, str],
    settings: ComparisonSettings,
    before: Sequence[RunShares] = (),
) -> list[ComparedMessages]:
    """Return the comparisons of those of `shares` that have one baseline, judged together.

    Args:
        shares: of one platform's experiments.
        baseline: axis -> value; what is compared has this value there, and is alike on the other axes.
        settings: confidence and the least difference that matters.
        before: what the baseline's axis is instead where it names earlier results: nothing took turns with these.
    """
    pairs = []
    for own in shares:
        partners = [other for other in before or shares if _is_baseline(own, other, baseline)]
        if len(partners) == 1 and partners[0] is not own:
            theirs = {step.batch: step for step in partners[0].steps}
            pairs += [(own, partners[0], step, theirs[step.batch]) for step in own.steps if step.batch in theirs]
    compare_sides = compare_apart if before else compare
    compared = [
        compare_sides(_engine_s(step.launches), _engine_s(other.launches), settings.confidence, higher_is_better=False)
        for _, _, step, other in pairs
    ]
    return [
        ComparedMessages(own, other, step.batch, comparison)
        for (own, other, step, _), comparison in zip(pairs, judge(compared, settings), strict=True)
    ]


def _is_baseline(own: RunShares, other: RunShares, baseline: Mapping[str, str]) -> bool:
    mine, theirs = own.run.chosen.experiment, other.run.chosen.experiment
    return bool(baseline) and names_of(theirs) == names_of(mine, baseline)


def _engine_s(launches: Mapping[int, LaunchShare]) -> dict[int, float]:
    return {launch: share.engine_s for launch, share in launches.items()}
