"""Costs of a start: the mean of each phase over valid launches, and the time outside all phases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import pandas as pd

from rollout_bench.analysis.stats.intervals import mean
from rollout_bench.analysis.timed.rows import Row
from rollout_bench.contracts.record import Record
from rollout_bench.contracts.starts import PhaseName, StartCourse


@dataclass(frozen=True)
class MeanPhase:
    """Means of a phase over launches, in seconds: its own time, its beginning and its end."""

    own_s: float
    began_s: float
    ended_s: float


@dataclass(frozen=True)
class StartCosts:
    """Means over valid launches.

    Attributes:
        launches: the number of each launch and the course of its start.
        phases: in the order of their beginnings.
        rest_s: time outside all phases, in seconds.
        until_token_s: from the launch's beginning until the first token, in seconds: all phases and the rest.
        startup_s: importing the engine and constructing it, in seconds.
        weights_bytes: size of the weight files; None if none are read.
        reading_s: time of reading the weights, without repacking, from vLLM's log; else the phase of weights.
        cache_files: files in the compile caches before the start; None if not counted.
    """

    launches: tuple[tuple[int, StartCourse], ...]
    phases: Mapping[PhaseName, MeanPhase]
    rest_s: float
    until_token_s: float
    startup_s: float
    weights_bytes: int | None
    reading_s: float | None
    cache_files: float | None

    @property
    def rest_share(self) -> float:
        """Share of the whole start outside all phases."""
        return self.rest_s / self.until_token_s

    @property
    def largest(self) -> list[tuple[PhaseName, float, float]]:
        """The phases with their own seconds and their shares of the whole, the largest first."""
        own = {name: phase.own_s for name, phase in self.phases.items()}
        return [(n, own[n], own[n] / self.until_token_s) for n in sorted(own, key=lambda n: own[n], reverse=True)]

    @property
    def loading_bytes_per_s(self) -> float | None:
        """Bytes of weight files per second of reading them; None if none are read."""
        if self.weights_bytes is None or not self.reading_s:
            return None
        return self.weights_bytes / self.reading_s


def start_costs(row: Row) -> StartCosts | None:
    """Return the costs of a start of `row`; None if no valid launch has a course."""
    used = {launch.launch for launch in row.used}
    return costs_of_starts([record for record in row.experiment.records if record.launch in used])


def costs_of_starts(records: Sequence[Record]) -> StartCosts | None:
    """Return the costs of a start of these launches; None if none has a course.

    A missing phase counts as 0 s, so the means of all phases and of the rest add up to the whole.
    """
    there = [(record, record.startup.course) for record in records if record.startup.course is not None]
    if not there:
        return None
    courses = [course for _, course in there]
    phases: dict[PhaseName, MeanPhase] = {}
    names: tuple[PhaseName, ...] = get_args(PhaseName)
    for name in names:
        found = [phase for course in courses if (phase := course.phase(name)) is not None]
        if found:
            phases[name] = MeanPhase(
                own_s=sum(phase.elapsed_s for phase in found) / len(courses),
                began_s=mean([phase.began_s for phase in found]),
                ended_s=mean([phase.ended_s for phase in found]),
            )
    logged = [s for record, _ in there if (s := record.startup.reported.get("weights_load_s"))]
    files = [course.cache_files for course in courses if course.cache_files is not None]
    return StartCosts(
        launches=tuple((record.launch, course) for record, course in there),
        phases=dict(sorted(phases.items(), key=lambda item: item[1].began_s)),
        rest_s=mean([course.rest_s for course in courses]),
        until_token_s=mean([course.until_token_s for course in courses]),
        startup_s=mean([record.startup.import_s + record.startup.init_s for record, _ in there]),
        weights_bytes=next((c.weights_bytes for c in courses if c.weights_bytes is not None), None),
        reading_s=mean(logged) if logged else phases["weights"].own_s if "weights" in phases else None,
        cache_files=mean(files) if files else None,
    )


def start_table(rows: Sequence[Row]) -> pd.DataFrame:
    """Return a line for each valid launch of `rows`, in plain units and full precision."""
    lines = []
    for row in rows:
        names = {"platform": row.experiment.platform, **row.axes, "experiment": row.experiment.experiment}
        found = start_costs(row)
        for launch, course in found.launches if found is not None else ():
            own = {f"{name}_s": course.own_s(name) for name in get_args(PhaseName)}
            kept = course.model_dump(exclude={"phases"}, exclude_none=False)
            lines.append(names | {"launch": launch} | own | kept)
    return pd.DataFrame(lines)
