"""The summary as one HTML file to share: answers, pictures, tables, and folded notes. It loads no other files."""

from __future__ import annotations

import base64
import re
import sys
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from markdown_it import MarkdownIt

from rollout_bench.core.errors import printable
from rollout_bench.core.numbers import several
from rollout_bench.report.headings import Views
from rollout_bench.report.prose import Section
from rollout_bench.report.rendering import escaped, markdown_section, markdown_table

if TYPE_CHECKING:
    from rollout_bench.report.figures.pictures import Picture

TITLE = "Rollout benchmark"

_STYLE = """
:root { color-scheme: light dark; --ink: #222; --page: #fff; --line: #ddd; --quiet: #666; --alarm: #d55e00 }
@media (prefers-color-scheme: dark) { :root { --ink: #ddd; --page: #16181b; --line: #3a3d42; --quiet: #999 } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page);
  max-width: 75em; margin: 2em auto; padding: 0 1em }
nav { color: var(--quiet) } nav a { margin-right: 1em; display: inline-block }
a { color: inherit }
h1, h2, p, li, nav { overflow-wrap: break-word }
.wide { overflow-x: auto }
table { border-collapse: collapse; margin: 1em 0 }
th, td { padding: .3em .8em; border-bottom: 1px solid var(--line); font-variant-numeric: tabular-nums }
blockquote { border-left: 4px solid var(--alarm); margin: 1em 0; padding: 0 1em }
figure { margin: 1em 0 } figure img { width: 100%; max-width: 48em; height: auto }
[id^=conclusion] strong { font-size: 1.3em; line-height: 1.3 }
summary { cursor: pointer }
@media print { nav { display: none } body { max-width: none; margin: 0 } figure, table { break-inside: avoid } }
"""

_UNFOLD = """
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((each) => { each.open = true }));
addEventListener("hashchange", () => { const there = document.querySelector(location.hash + " details");
  if (there) there.open = true });
"""
"""Script that opens folded sections for printing, and when a link of the contents leads to them."""

_OPEN = frozenset({"No valid launch", "Damaged", "Failed", "Missing", "No verdict"})
"""Notes that are not folded, because they report a problem."""


def page(
    status: str, tables: Views, sections: Sequence[Section], answers: Sequence[Section], pictures: Sequence[Picture]
) -> str:
    """Return the whole page."""
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")

    def rendered(markdown: str) -> str:
        return str(parser.render(printable(markdown, sys.maxsize)))

    parts: list[tuple[str, str]] = []
    for section in answers:
        parts.append((section.heading, rendered(markdown_section(section).partition("\n")[2])))
    parts.append(("", "\n".join(map(_figure, pictures))))
    for view in tables.tables:
        parts.append((view.title, f'<div class="wide">{rendered(markdown_table(view))}</div>'))
    for section in sections:
        body = rendered(markdown_section(section).partition("\n")[2])
        if section.heading not in _OPEN:
            items = several(len(section.items) + len(section.links), "item")
            body = f"<details><summary>{items}</summary>{body}</details>"
        parts.append((section.heading, body))
    parts = [(printable(heading), body) for heading, body in parts]
    contents = " ".join(f'<a href="#{_name(heading)}">{escape(heading)}</a>' for heading, _ in parts if heading)
    bodies = "\n".join(
        f'<section id="{_name(heading)}"><h2>{escape(heading)}</h2>\n{body}</section>' if heading else body
        for heading, body in parts
    )
    strong = f"> **{escaped(status)}**" if status.startswith("INCOMPLETE") else escaped(status)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{TITLE}</title>\n'
        f'<meta name="viewport" content="width=device-width">\n<style>{_STYLE}</style>\n</head>\n<body>\n'
        f"<h1>{TITLE}</h1>\n{rendered(strong)}<nav>{contents}</nav>\n{bodies}\n"
        f"<script>{_UNFOLD}</script>\n</body>\n</html>\n"
    )


def _figure(picture: Picture) -> str:
    data = base64.b64encode(picture.svg).decode()
    source = f"data:image/svg+xml;base64,{data}"
    return f'<figure id="figure-{picture.name}"><img alt="{escape(picture.title)}" src="{source}"></figure>'


def _name(heading: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-")
