"""Whether the launches of a pair took turns: only then does a drift hit both alike, and only then are they a pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from statistics import median

from rollout_bench.analysis.experiments import Experiment, launched
from rollout_bench.analysis.launches import LaunchMeasures
from rollout_bench.records.record import Flag

SLACK_S = 600.0
"""Seconds by which two launches of one round may be further apart than the launches between them take."""


def round_s(experiments: Sequence[Experiment]) -> float:
    """How far apart two launches of one round of `experiments` can be, in seconds.

    Twice what a launch of each takes, since every other round runs backwards and some launches fail, and `SLACK_S`.
    """
    each = launched(experiments)
    taken = [record.wall_s for experiment in each for record in experiment.records]
    return 2 * len(each) * median(taken) + SLACK_S if taken else SLACK_S


def marked_out_of_turn(
    launches: Sequence[LaunchMeasures], experiment: Experiment, other: Experiment, limit_s: float
) -> tuple[LaunchMeasures, ...]:
    """`launches` of `experiment`, those marked that started over `limit_s` before or after their partner in `other`.

    That is what becomes of launches of which one side was measured later: of an experiment that was added, of a record
    that was deleted. Whatever changed meanwhile is the same in all of their ratios, so no number of them would tell.
    """
    theirs = {record.launch: datetime.fromisoformat(record.started_at).timestamp() for record in other.records}
    own = {record.launch: datetime.fromisoformat(record.started_at).timestamp() for record in experiment.records}
    found = []
    for launch in launches:
        there = launch.launch in theirs
        apart_s = abs(own[launch.launch] - theirs[launch.launch]) if there else 0.0
        if apart_s > limit_s:
            sentence = (
                f"It and its partner in the baseline started {_hours(apart_s)} apart, and launches that take turns at "
                f"most {_hours(limit_s)}: what changed meanwhile would pass for a difference, so they are no pair."
            )
            flag = Flag(code="not_in_turn", severity="warning", sentence=sentence)
            launch = replace(launch, flags=(*launch.flags, flag), in_turn=False)
        found.append(launch)
    return tuple(found)


def _hours(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds < 2 * 3600 else f"{seconds / 3600:.1f} h"
