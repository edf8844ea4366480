"""The summary: tables and notes as the files that hold them."""

from __future__ import annotations

from dataclasses import dataclass

from rollout_bench.analysis.collection import Collection
from rollout_bench.analysis.rows import rows_of
from rollout_bench.analysis.tables import table
from rollout_bench.reporting.markdown import markdown
from rollout_bench.reporting.notes import completeness, notes
from rollout_bench.reporting.page import page
from rollout_bench.reporting.terminal import terminal
from rollout_bench.reporting.views import views


@dataclass(frozen=True)
class Summary:
    """The contents of summary.md, summary.html, summary.csv and summary.txt, and the line that heads them."""

    status: str
    markdown: str
    html: str
    csv: str
    text: str


def summarise(collection: Collection, figures: bool = False) -> Summary:
    """Makes the summary of `collection`; with links to its figures in the Markdown if `figures`."""
    rows = rows_of(collection)
    frame = table(rows)
    status = completeness(collection)
    tables = views(frame, rows, collection.comparison, apart=collection.earlier is not None)
    sections = notes(collection, rows, tables.footnotes)
    return Summary(
        status=status,
        markdown=markdown(status, tables, sections, figures),
        html=page(markdown(status, tables, sections, figures=False)),
        csv=frame.to_csv(index=False, lineterminator="\n"),
        text=terminal(status, tables, sections),
    )
