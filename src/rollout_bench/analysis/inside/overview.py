"""Everything that a summary says of the inside of the engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rollout_bench.analysis.inside.drifts import DriftReport, drift_report
from rollout_bench.analysis.inside.message_links import MessagesRun, message_runs
from rollout_bench.analysis.inside.profile_report import ProfileReport, profile_report
from rollout_bench.analysis.inside.profiles import read_profiled
from rollout_bench.analysis.timed.experiments import Chosen, Collection, chosen
from rollout_bench.analysis.timed.rows import Row


@dataclass(frozen=True)
class Looked:
    """What was found inside the engine; all empty where nothing of the kind was measured.

    `problems` say of profiles that can't be read why, and what to do. `left_out` are the experiments without a valid
    launch, of which nothing else is made from anything that they measured. `rows` are the timed experiments, for
    whoever else needs them.
    """

    profiles: ProfileReport = field(default_factory=lambda: profile_report(()))
    problems: tuple[str, ...] = ()
    messages: tuple[MessagesRun, ...] = ()
    drift: DriftReport = field(default_factory=DriftReport)
    left_out: tuple[Chosen, ...] = ()
    rows: tuple[Row, ...] = ()


def look(results: Path, collection: Collection, rows: Sequence[Row]) -> Looked:
    """Read and analyse what `collection`, which was read from `results`, has of modes that look into the engine."""
    if not collection.others:
        return Looked(rows=tuple(rows))
    settings = collection.comparison
    inside = chosen(collection.others)
    read = read_profiled(results, inside, collection)
    profiles = profile_report(read.profiled, read.left_out)
    messages, damaged = message_runs(results, inside)
    return Looked(
        profiles=profiles,
        problems=(*read.problems, *damaged),
        messages=tuple(messages),
        drift=drift_report(results, inside, settings.confidence),
        left_out=tuple(each for each in inside if each.reason),
        rows=tuple(rows),
    )
