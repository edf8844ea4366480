"""The summary as one HTML file to share: answers, pictures, tables, and folded notes. It loads no other files."""

import base64
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from html import escape
from pathlib import Path

from markdown_it import MarkdownIt

from rollout_bench.contracts.flags import MEANINGS
from rollout_bench.core.errors import printable
from rollout_bench.core.numbers import MISSING
from rollout_bench.report.notes import FACTS
from rollout_bench.report.parts import Picture
from rollout_bench.report.prose import Section
from rollout_bench.report.rendering import escaped, markdown_section
from rollout_bench.report.views import FLAGS, Column, View

TITLE = "Rollout benchmark"

_STYLE, _UNFOLD, _EXPLORER = (
    (Path(__file__).parent / "templates" / name).read_text() for name in ("page.css", "page.js", "explorer.js")
)

_LEGEND = ("Definitions", "Flags")
"""How the headings of notes begin that explain the tables."""

_OPEN = frozenset({"No valid launch", "Damaged", "Failed", "Missing", "No verdict"})
"""Notes that are not folded, because they report a problem."""

SHOWN = 2
"""Figures that are not folded."""


def page(
    status: str,
    tables: Sequence[View],
    sections: Sequence[Section],
    answers: Sequence[Section],
    pictures: Sequence[Picture] = (),
    explored: str = "",
    name: str = "",
) -> str:
    """Return the whole page: the answers, the first figures and the first table, then all else, folded.

    `explored` is JSON for the explorer; without it there is none. `name` is what the title names.
    """
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")

    def rendered(markdown: str) -> str:
        return str(parser.render(printable(markdown, sys.maxsize)))

    def body_of(section: Section) -> str:
        body = rendered(markdown_section(replace(section, command="")).partition("\n")[2])
        command = f'<div class="command"><code>{escape(printable(section.command, sys.maxsize))}</code></div>'
        return body + (command if section.command else "")

    def folded(heading: str, body: str) -> str:
        return f'<details id="{_name(heading)}"><summary>{escape(printable(heading))}</summary>{body}</details>'

    def link(heading: str) -> str:
        return f'<a href="#{_name(heading)}">{escape(printable(heading))}</a>'

    figures = [_figure(picture) for picture in pictures]
    shown = [(view.title, f'<div class="wide">{_table(view)}</div>') for view in tables]
    legend = ", ".join(link(each.heading) for each in sections if each.heading.startswith(_LEGEND))
    explained = f'<p class="legend">What columns and flags mean: {legend}</p>' if legend else ""
    first = [f"<h3>{escape(printable(title))}</h3>{body}{explained}" for title, body in shown[:1]]
    notes = [section for section in sections if section.heading != FACTS]
    facts = [section for section in sections if section.heading == FACTS]
    urgent = [f"<h3>{escape(each.heading)}</h3>{body_of(each)}" for each in notes if each.heading in _OPEN]
    further = [folded(each.heading, body_of(each)) for each in notes if each.heading not in _OPEN]
    more = [folded("More figures", "".join(figures[SHOWN:]))] if figures[SHOWN:] else []
    parts = [(section.heading, body_of(section)) for section in (*answers, *facts)] + [
        ("Figures", "".join([*figures[:SHOWN], *more])),
        ("Tables", "".join([*first, *(folded(title, body) for title, body in shown[1:])])),
        (
            "Explorer",
            folded("Choose numbers, sort, look at single launches", '<div class="explored"></div>') if explored else "",
        ),
        ("Notes", "".join([*urgent, *further])),
    ]
    contents = " ".join(link(heading) for heading, body in parts if body)
    bodies = "\n".join(
        f'<section id="{_name(heading)}"><h2>{escape(printable(heading))}</h2>\n{body}</section>'
        for heading, body in parts
        if body
    )
    strong = f"> **{escaped(status)}**" if status.startswith("INCOMPLETE") else escaped(status)
    title = escape(f"{TITLE}: {name}" if name else TITLE)
    scripts = f'<script type="application/json" id="explorer-data">{explored}</script>\n<script>{_EXPLORER}</script>\n'
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        f'<meta name="viewport" content="width=device-width">\n<style>{_STYLE}</style>\n</head>\n<body>\n'
        f"<header><h1>{title}</h1>\n{rendered(strong)}</header>\n<nav>{contents}</nav>\n{bodies}\n"
        f"<script>{_UNFOLD}</script>\n{scripts if explored else ''}</body>\n</html>\n"
    )


def _figure(picture: Picture) -> str:
    """Return the figure with its title and captions as text, which stays readable on a phone."""
    above, below = (" ".join(filter(None, texts)) for texts in (picture.drawn.above, (picture.drawn.below,)))
    svg = base64.b64encode(picture.drawn.without_texts).decode()
    return (
        f'<figure id="figure-{picture.name}"><figcaption><b>{_text(picture.title)}</b> {_text(above)}</figcaption>'
        f'<img alt="{escape(picture.title)}" src="data:image/svg+xml;base64,{svg}">'
        f"<figcaption>{_text(below)}</figcaption></figure>"
    )


def _table(view: View) -> str:
    """Return the table: heads with their definitions as hints, and the flags of a line as badges below it."""
    columns = [(place, column) for place, column in enumerate(view.columns) if column != FLAGS]
    flags = next((place for place, column in enumerate(view.columns) if column == FLAGS), None)
    heads = "".join(
        f"<th{_kind(column)}{_hint(column.definition)}>{_text(column.header)}</th>" for _, column in columns
    )
    lines = []
    for cells in view.cells:
        line = "".join(
            f'<td{_kind(column)} data-head="{escape(column.header)}">{_text(cells[place])}</td>'
            for place, column in columns
        )
        lines.append(f"<tr>{line}</tr>")
        if flags is not None and cells[flags] != MISSING:
            badges = "".join(map(_badge, cells[flags].split("; ")))
            lines.append(f'<tr class="flags"><td colspan="{len(columns)}">{badges}</td></tr>')
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _badge(flag: str) -> str:
    """Return one of the flags of a line, such as `cpu_shared! 1/5`, with its meaning as a hint."""
    code = flag.partition(" ")[0].removesuffix("!")
    kind = "badge invalid" if "!" in flag else "badge"
    return f'<span class="{kind}"{_hint(MEANINGS.get(code, ""))}>{_text(flag)}</span>'


def _hint(text: str) -> str:
    return f' title="{escape(printable(text, sys.maxsize))}"' if text else ""


def _kind(column: Column[object]) -> str:
    return ' class="words"' if column.words else ""


def _text(text: str) -> str:
    return escape(printable(text, sys.maxsize), quote=False)


def _name(heading: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-")
