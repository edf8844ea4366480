"""All findings of a summary about the inside of the engine."""

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
    """Findings inside the engine; fields are empty if the mode was not measured.

    `problems` are messages about unreadable profiles. `left_out` are the experiments without a valid
    launch; none of their measurements are used. `rows` are the timed experiments.
    """

    profiles: ProfileReport = field(default_factory=lambda: profile_report(()))
    problems: tuple[str, ...] = ()
    messages: tuple[MessagesRun, ...] = ()
    drift: DriftReport = field(default_factory=DriftReport)
    left_out: tuple[Chosen, ...] = ()
    rows: tuple[Row, ...] = ()


def look(results: Path, collection: Collection, rows: Sequence[Row]) -> Looked:
    """Read and analyse the profile, messages and drift experiments of `collection`, which was read from `results`."""
    if not collection.others:
        return Looked(rows=tuple(rows))
    settings = collection.comparison
    inside = chosen(collection.others)
    profiled, problems = read_profiled(results, inside, collection)
    return Looked(
        profiles=profile_report(profiled),
        problems=tuple(problems),
        messages=tuple(message_runs(inside)),
        drift=drift_report(results, inside, settings.confidence),
        left_out=tuple(each for each in inside if each.reason),
        rows=tuple(rows),
    )
