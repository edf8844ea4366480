"""The summary as one HTML file to share: answers, pictures, tables, and folded notes. It loads no other files."""

import base64
import re
import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path

from markdown_it import MarkdownIt

from rollout_bench.core.errors import printable
from rollout_bench.report.notes import FACTS
from rollout_bench.report.parts import Picture
from rollout_bench.report.prose import Section
from rollout_bench.report.rendering import escaped, markdown_section, markdown_table
from rollout_bench.report.views import View

TITLE = "Rollout benchmark"

_STYLE, _UNFOLD, _EXPLORER = (
    (Path(__file__).parent / "templates" / name).read_text() for name in ("page.css", "page.js", "explorer.js")
)

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
) -> str:
    """Return the whole page: the answers, the first figures and the first table, then all else, folded.

    `explored` is JSON for the explorer; without it there is none.
    """
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")

    def rendered(markdown: str) -> str:
        return str(parser.render(printable(markdown, sys.maxsize)))

    def body_of(section: Section) -> str:
        return rendered(markdown_section(section).partition("\n")[2])

    def folded(heading: str, body: str) -> str:
        return f"<details><summary>{escape(printable(heading))}</summary>{body}</details>"

    figures = [
        f'<figure id="figure-{picture.name}"><img alt="{escape(picture.title)}" '
        f'src="data:image/svg+xml;base64,{base64.b64encode(picture.svg).decode()}"></figure>'
        for picture in pictures
    ]
    shown = [(view.title, f'<div class="wide">{rendered(markdown_table(view))}</div>') for view in tables]
    first = [f"<h3>{escape(printable(title))}</h3>{body}" for title, body in shown[:1]]
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
    contents = " ".join(
        f'<a href="#{_name(heading)}">{escape(printable(heading))}</a>' for heading, body in parts if body
    )
    bodies = "\n".join(
        f'<section id="{_name(heading)}"><h2>{escape(printable(heading))}</h2>\n{body}</section>'
        for heading, body in parts
        if body
    )
    strong = f"> **{escaped(status)}**" if status.startswith("INCOMPLETE") else escaped(status)
    scripts = f'<script type="application/json" id="explorer-data">{explored}</script>\n<script>{_EXPLORER}</script>\n'
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{TITLE}</title>\n'
        f'<meta name="viewport" content="width=device-width">\n<style>{_STYLE}</style>\n</head>\n<body>\n'
        f"<header><h1>{TITLE}</h1>\n{rendered(strong)}</header>\n<nav>{contents}</nav>\n{bodies}\n"
        f"<script>{_UNFOLD}</script>\n{scripts if explored else ''}</body>\n</html>\n"
    )


def _name(heading: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-")
