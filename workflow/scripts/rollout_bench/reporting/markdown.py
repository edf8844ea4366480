"""The summary in GitHub's Markdown."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from urllib.parse import quote

from rollout_bench.errors import printable
from rollout_bench.reporting.notes import Section
from rollout_bench.reporting.view import View
from rollout_bench.reporting.views import Views

FIGURES = {
    "throughput": "Throughput",
    "speedup": "Speed-up",
    "latency": "Latency",
    "sweep": "Latency over the sweep",
    "replicas": "When replicas were done",
    "steps": "Where a step's time goes",
    "roles": "Speed-up by role",
    "roofline": "Roofline",
    "operators": "Break-even of linear layers",
}
"""Figures that the summary can show, with the words in their place."""


def markdown(
    status: str, tables: Views, sections: Sequence[Section], figures: Sequence[str], title: str = "Rollout benchmark"
) -> str:
    """The whole file: `title`, `status`, tables, those of `FIGURES` that `figures` names, then the sections."""
    strong = f"> **{_escape(status)}**" if status.startswith("INCOMPLETE") else _escape(status)
    parts = [f"# {title}", strong]
    parts += [f"## {_escape(view.title)}\n\n{_table(view)}" for view in tables.tables]
    if figures:
        parts += ["\n".join(f"![{FIGURES[name]}](figures/{name}.png)" for name in FIGURES if name in figures)]
    for section in sections:
        items = [f"- {_escape(item)}" for item in section.items]
        items += [f"- [{_escape(text)}]({quote(path)})" for text, path in section.links]
        parts.append("\n".join([f"## {section.heading}\n", *items]))
    # what records of earlier versions quote was not made printable when it was written
    return printable("\n\n".join(parts) + "\n", sys.maxsize)


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
    for character in "\\|*<>`~[]&":
        text = text.replace(character, "\\" + character)
    # Underscores inside a word are no markup on GitHub.
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)
