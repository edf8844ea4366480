"""Notes of a summary: `templates/` has the sentences, Python the values."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from rollout_bench import modes
from rollout_bench.analysis.timed.comparison import BOUND
from rollout_bench.core.mappings import grouped
from rollout_bench.core.numbers import count, first_few, number, percent, plain_percent, ratio, sentence, several
from rollout_bench.report.views import View, without_empty

TEMPLATES: list[str] = [str(Path(__file__).parent / "templates"), *modes.__path__]
"""Folders of templates: our own, and the folder of the modes."""

_NAMED = 3
"""Number of names in a list before the rest is counted."""


Kind = Literal["note", "answer", "conclusion", "facts", "footnotes", "legend", "links", "method", "problem"]
"""What a section is, which decides where it stands: a conclusion and a mode's own answer are in the short answer, facts
and footnotes are below it, a legend explains tables, a method is only in files, a problem is never folded; links belong
to a note."""

_HEADING = re.compile(r"## (?:\[(\w+)\] )?(.*)")


@dataclass(frozen=True)
class Section:
    """A heading with its items, each a sentence or a few, and links as (text, path relative to the summary).

    `lead` is a sentence above the items, and `command` one to copy below them; each is empty if there is none.
    """

    heading: str
    items: tuple[str, ...]
    links: tuple[tuple[str, str], ...] = ()
    lead: str = ""
    command: str = ""
    kind: Kind = "note"


def sections(template: str, **values: Any) -> list[Section]:
    """Return the sections of <template>.md.j2 with `values`, without empty sections.

    A heading is `## Flags`, or with its kind `## [legend] Flags`.

    Raises:
        jinja2.UndefinedError: the template needs a missing value.
        ValueError: it has text outside of an item.
    """
    found: list[tuple[Any, str, list[str]]] = []
    for line in templates().get_template(f"{template}.md.j2").render(values).splitlines():
        if heading := _HEADING.fullmatch(line):
            found.append((heading[1] or "note", heading[2], []))
        elif line.startswith("- "):
            found[-1][2].append(line.removeprefix("- "))
        elif line.strip():
            if not found or not found[-1][2]:
                raise ValueError(f"{template}.md.j2: text outside of an item: {line.strip()}")
            found[-1][2][-1] += f" {line.strip()}"
    return [
        Section(heading, tuple(" ".join(item.split()) for item in items), kind=kind)
        for kind, heading, items in found
        if items
    ]


def definitions(heading: str, tables: Iterable[View]) -> tuple[Section, ...]:
    """Return the section that defines the shown columns of `tables`, each once; empty if there are none."""
    columns = [column for table in without_empty(tables) for column in table.columns if column.definition]
    headers = grouped((column.definition, column.header) for column in columns)
    items = tuple(f"{', '.join(dict.fromkeys(names))}: {definition}" for definition, names in headers.items())
    return (Section(heading, items, kind="legend"),) if items else ()


def all_or_names(names: Sequence[str], compared: int) -> str:
    """Return `all compared` if there are as many `names`, else the names."""
    return "all compared" if len(names) == compared > 1 else "; ".join(names)


def few_names(names: Sequence[str], most: int = _NAMED) -> str:
    """Return the first few of `names`, and the number of the rest."""
    return first_few(names, most, "; ")


def _one_line(value: Any) -> Any:
    """Return `value` without line breaks, so that foreign text cannot start an item or a heading."""
    return " ".join(value.split()) if isinstance(value, str) else value


@cache
def templates() -> Environment:
    # No escaping here: each renderer escapes the items for its format.
    environment = Environment(loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, finalize=_one_line)
    environment.globals["bound"] = BOUND
    environment.filters |= {
        "number": number,
        "percent": percent,
        "plain": "{:.6g}".format,
        "plain_percent": plain_percent,
        "ratio": ratio,
        "sentence": sentence,
        "several": several,
        "some": few_names,
        "those": all_or_names,
        "thousands": count,
    }
    return environment
