"""The summary in GitHub's Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rollout_bench.reporting.notes import Section
from rollout_bench.reporting.views import View, Views

FIGURES = (("Throughput", "figures/throughput.png"), ("Speed-up", "figures/speedup.png"))
"""Figures that the summary links to when asked, relative to it."""


def markdown(
    status: str, tables: Views, sections: Sequence[Section], figures: bool, title: str = "Rollout benchmark"
) -> str:
    """The whole file: `title`, `status`, tables, links to the figures if `figures`, then the sections."""
    strong = f"> **{_escape(status)}**" if status.startswith("INCOMPLETE") else _escape(status)
    parts = [f"# {title}", strong]
    parts += [f"## {_escape(view.title)}\n\n{_table(view)}" for view in tables.tables]
    if figures:
        parts += ["\n".join(f"![{name}]({path})" for name, path in FIGURES)]
    for section in sections:
        items = "\n".join(f"- {_escape(item)}" for item in section.items)
        parts.append(f"## {section.heading}\n\n{items}")
    return "\n\n".join(parts) + "\n"


def _table(view: View) -> str:
    rows = [
        [_escape(column.header) for column in view.columns],
        [":--" if column.words else "--:" for column in view.columns],
        *([_escape(cell) for cell in line] for line in view.cells),
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _escape(text: str) -> str:
    """`text` on one line, with everything that Markdown would read as markup taken literally."""
    text = " ".join(text.split())
    for character in "\\|*<>`~[]":
        text = text.replace(character, "\\" + character)
    # Underscores inside a word are no markup on GitHub.
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)
