"""The summary: tables and notes as the files that hold them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from rollout_bench.analysis.inside.overview import Looked
from rollout_bench.analysis.inside.reconciliation import profile_table
from rollout_bench.analysis.timed.balance import replica_table
from rollout_bench.analysis.timed.columns import table
from rollout_bench.analysis.timed.experiments import Collection
from rollout_bench.analysis.timed.latencies import PooledSequences, distributions
from rollout_bench.analysis.timed.mode_pairs import mode_pairs, saturations
from rollout_bench.analysis.timed.rows import rows_of
from rollout_bench.report.bound_tables import reach_notes, reach_views
from rollout_bench.report.figure_names import figure_names
from rollout_bench.report.message_tables import messages_views
from rollout_bench.report.notes import Section, completeness, left_out_notes, notes, percentile_notes
from rollout_bench.report.online_tables import modes_notes, online_notes
from rollout_bench.report.operator_tables import operators_notes, operators_views
from rollout_bench.report.profile_tables import profile_notes, profile_views
from rollout_bench.report.rendering import markdown, page, terminal
from rollout_bench.report.tables import replica_notes, replica_views, views


@dataclass(frozen=True)
class Summary:
    """The contents of summary.md, summary.html, summary.csv and summary.txt, and the line that heads them.

    `tables` are those of other files by their names, for programs: what profiles and replicas come to.
    """

    status: str
    markdown: str
    html: str
    csv: str
    text: str
    tables: Mapping[str, str] = field(default_factory=dict)


def summarise(
    collection: Collection,
    sequences: Sequence[PooledSequences] = (),
    *,
    figures: bool = False,
    looked: Looked | None = None,
) -> Summary:
    """Makes the summary of `collection`.

    Args:
        collection: the launches.
        sequences: of each experiment in its order; without them there are no percentiles.
        figures: link to the figures in the Markdown.
        looked: what was found inside the engine.
    """
    rows = rows_of(collection)
    found = [distributions(pooled) for pooled in sequences]
    settings = collection.comparison
    sweeps, pairs = saturations(rows, settings.confidence), mode_pairs(rows, collection)
    frame = table(rows, found)
    status = completeness(collection)
    apart = collection.earlier is not None
    tables = views(frame, rows, settings, found, apart=apart, found=sweeps, pairs=pairs)
    online = (*online_notes(rows, sweeps, settings, collection.slo), *modes_notes(pairs, settings))
    sections = notes(collection, rows, tables.footnotes, percentile_notes(rows, sequences, found), online)
    inside = looked or Looked()
    profiles = profile_views(inside.profiles)
    more = (
        *replica_views(rows),
        *reach_views(inside.reaches),
        *profiles,
        *operators_views(inside.steps, inside.passes, inside.left_out),
        *messages_views(inside.messages, inside.left_out),
    )
    tables = replace(tables, tables=(*tables.tables, *more))
    sections += [
        *replica_notes(rows),
        *reach_notes(inside.reaches, inside.limits),
        *profile_notes(inside.profiles, profiles),
    ]
    if left_out := left_out_notes(inside.left_out):
        sections.insert(0, Section("No valid launch", left_out))
    if inside.problems:
        sections.insert(0, Section("Profiles that can't be read", inside.problems))
    if linears := operators_notes(inside.runs, settings.confidence):
        sections.append(Section("Linear layers alone", linears))
    shown = figure_names(rows, collection) if figures else ()
    frames = {"replicas.csv": replica_table(rows)} if any(e.has_replicas for e in collection.experiments) else {}
    if inside.profiles.profiled or inside.profiles.left_out:
        frames["profile.csv"] = profile_table(inside.profiles)
    return Summary(
        status=status,
        markdown=markdown(status, tables, sections, shown),
        html=page(markdown(status, tables, sections, figures=())),
        csv=frame.to_csv(index=False, lineterminator="\n"),
        text=terminal(status, tables, sections),
        tables={name: each.to_csv(index=False, lineterminator="\n") for name, each in frames.items()},
    )
