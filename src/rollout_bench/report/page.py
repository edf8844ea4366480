"""The summary as one HTML file to share: answers, pictures, tables, and folded notes. It loads no other files."""

import base64
import re
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from rollout_bench.contracts.flags import MEANINGS
from rollout_bench.core.errors import printable
from rollout_bench.core.numbers import MISSING
from rollout_bench.report.parts import Picture
from rollout_bench.report.prose import Section
from rollout_bench.report.views import FLAGS, View

TITLE = "Rollout benchmark"

_TEMPLATES = Path(__file__).parent / "templates"

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
    is_complete: bool = True,
) -> str:
    """Return the whole page: conclusions, the first figures, the first table and open ones, then all else, folded.

    `explored` is JSON for the explorer; without it there is none. `name` is what the title names.
    """
    first = [section for section in answers if section.kind != "facts"]
    how = [section for section in (*answers, *sections) if section.kind == "facts"]
    problems = [section for section in sections if section.kind in ("problem", "footnotes")]
    notes = [section for section in sections if section.kind not in ("facts", "footnotes", "problem")]
    parts = {
        **{section.heading: True for section in first},
        "Figures": pictures,
        "Tables": tables,
        **{section.heading: True for section in how},
        "Explorer": explored,
        "Notes": (*problems, *notes),
    }
    files = {name: Markup((_TEMPLATES / file).read_text()) for name, file in _FILES.items()}
    return _template().render(
        title=f"{TITLE}: {name}" if name else TITLE,
        status=status,
        is_complete=is_complete,
        contents=[heading for heading, part in parts.items() if part],
        first=first,
        how=how,
        pictures=pictures,
        shown=SHOWN,
        opened=[*tables[:1], *(view for view in tables[1:] if view.is_open)],
        folded=[view for view in tables[1:] if not view.is_open],
        legend=[section for section in sections if section.kind == "legend"],
        problems=problems,
        notes=notes,
        explored=Markup(explored),
        **files,
    )


_FILES = {"style": "page.css", "unfold": "page.js", "explorer": "explorer.js"}


@cache
def _template() -> Template:
    environment = Environment(
        autoescape=True,
        loader=FileSystemLoader(_TEMPLATES),
        undefined=StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"flags": FLAGS, "missing": MISSING, "meanings": MEANINGS, "zip": zip}
    environment.filters |= {"anchor": _anchor, "base64": lambda content: base64.b64encode(content).decode()}
    return environment.get_template("page.html.j2")


def _printable(value: Any) -> Any:
    return printable(value, sys.maxsize) if isinstance(value, str) and not isinstance(value, Markup) else value


def _anchor(heading: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-")
