"""When the phases of a start began and ended, for its figure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

from rollout_bench.analysis.stats.intervals import mean
from rollout_bench.analysis.timed.rows import Row
from rollout_bench.modes.startup.record import PhaseName, course_of


@dataclass(frozen=True)
class MeanPhase:
    """Means of a phase over launches, in seconds: its own time, its beginning and its end."""

    own_s: float
    began_s: float
    ended_s: float


def phases_of(row: Row) -> Mapping[PhaseName, MeanPhase]:
    """Return each phase of the starts of `row`, over valid launches that had it, in the order of their beginnings."""
    courses = [course for record in row.experiment.records if record.valid and (course := course_of(record))]
    names: tuple[PhaseName, ...] = get_args(PhaseName)
    there = {name: [phase for course in courses if (phase := course.phase(name)) is not None] for name in names}
    means = {
        name: MeanPhase(
            *(mean([getattr(each, part) for each in found]) for part in ("elapsed_s", "began_s", "ended_s"))
        )
        for name, found in there.items()
        if found
    }
    return dict(sorted(means.items(), key=lambda item: item[1].began_s))
