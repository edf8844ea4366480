"""Render tables and notes as text for a terminal and as Markdown."""

import io
import re
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import pandas as pd
from rich.box import Box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rollout_bench.core.errors import printable
from rollout_bench.report.prose import Section
from rollout_bench.report.views import FLAGS, MODEL, SETS, SETTING, WORKLOAD, Column, View

WIDTH = 120
"""Width of the terminal in characters."""

_NAME_WIDTH, _NARROW_NAME_WIDTH, _FLAGS_WIDTH = 28, 13, 17
_SPEEDUP_WIDTH, _ONE_OF_SPEEDUPS_WIDTH = 34, 18
"""Longer words are folded, so that the numbers stay visible beside a long model name."""

_ROOM = 10_000
"""More than any table needs: tables are never squeezed, since this would cut numbers."""

_FORMULA = re.compile(r"\s*[=+@-].|[\t\r]")
"""Start of a cell that a spreadsheet would treat as a formula."""

_RULED = Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)


def terminal(
    status: str,
    tables: Sequence[View],
    sections: Sequence[Section],
    answers: Sequence[Section] = (),
    legend: str = "",
) -> str:
    """Return the text: `status`, answers, tables, their legend, then sections."""
    parts = [_fill(status)] if status else []
    parts += [*map(_terminal_section, answers), *map(_terminal_table, tables)]
    parts += [_fill(legend)] if legend else []
    parts += map(_terminal_section, sections)
    # texts in records of earlier versions may have unprintable characters
    return printable("\n\n".join(parts) + "\n", sys.maxsize)


def csv_text(frame: pd.DataFrame) -> str:
    """Return a table as CSV that is safe to print; an apostrophe precedes what a spreadsheet would run as a formula."""
    quoted = {
        str(name): column.map(lambda cell: f"'{cell}" if _runs(cell) else cell)
        for name, column in frame.items()
        if any(map(_runs, column))
    }
    return printable(frame.assign(**quoted).to_csv(index=False, lineterminator="\n"), sys.maxsize)


def _runs(cell: Any) -> bool:
    return isinstance(cell, str) and _FORMULA.match(cell) is not None


def _terminal_section(section: Section) -> str:
    items = [_fill(item, first="  - ", rest="    ") for item in section.items]
    items += [f"  - {text}: {path}" for text, path in section.links]
    lead = [_fill(section.lead, first="  ", rest="  ")] if section.lead else []
    items += (
        [f"    {section.command}"] if section.command else []
    )  # on one line, however long, so that it is copied whole
    return "\n".join([section.heading, *lead, *items])


def _fill(text: str, first: str = "", rest: str = "") -> str:
    return textwrap.fill(
        " ".join(text.split()),
        WIDTH,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _terminal_table(view: View) -> str:
    """Return the table at its natural width, or with folded words if it is wider than `WIDTH`."""
    speedups, names = (_SPEEDUP_WIDTH, *[_ONE_OF_SPEEDUPS_WIDTH] * 2), (*[_NAME_WIDTH] * 2, _NARROW_NAME_WIDTH)
    for speedup, name in zip(speedups, names, strict=True):
        text = _rendered(view, speedup, name)
        if max(map(len, text.splitlines()[1:])) <= WIDTH:
            break
    return text


def _rendered(view: View, speedup: int, name: int) -> str:
    table = Table(box=_RULED, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False)
    if sum(column.is_speedup for column in view.columns) > 1:
        speedup = _ONE_OF_SPEEDUPS_WIDTH
    for column in view.columns:
        header = escape(_two_lines(column.header))
        if column.words:
            table.add_column(header, overflow="fold", max_width=_width(column, speedup, name))
        else:
            table.add_column(header, justify="right", no_wrap=True)
    for line in _without_repeats(view):
        cells = zip(view.columns, line, strict=True)
        table.add_row(
            *(
                escape(cell.replace("+", "\n+").replace(", ", ",\n") if column in (SETTING, SETS) else cell)
                for column, cell in cells
            )
        )
    console = Console(file=io.StringIO(), width=_ROOM, color_system=None, legacy_windows=False)
    with console.capture() as capture:
        console.print(table, highlight=False)
    lines = [line.rstrip() for line in capture.get().splitlines()]
    return "\n".join([view.title, "", *lines])


def _width(column: Column[object], speedup: int, name: int) -> int:
    """Return the width beyond which words of `column` are folded; `speedup` and `name` are those of such columns."""
    if column.is_speedup:
        return speedup
    return {FLAGS: _FLAGS_WIDTH, SETTING: _NAME_WIDTH, SETS: _NAME_WIDTH}.get(column, name)


def _two_lines(header: str) -> str:
    """Return `header`, broken at the space that makes it narrowest."""
    spaces = [place for place, character in enumerate(header) if character == " "]
    broken = [header[:place] + "\n" + header[place + 1 :] for place in spaces]
    return min(broken, key=lambda text: max(map(len, text.split("\n"))), default=header)


def _without_repeats(view: View) -> list[list[str]]:
    """Return the cells without names that are the same in the line above (all but the last column of names)."""
    names = sum(column in (MODEL, WORKLOAD) for column in view.columns)
    lines = []
    for above, cells in zip([(), *view.cells], view.cells, strict=False):
        same = max(place for place in range(names + 1) if cells[:place] == above[:place])
        lines.append([*[""] * same, *cells[same:]])
    return lines


def markdown(
    status: str,
    tables: Sequence[View],
    sections: Sequence[Section],
    pictures: Mapping[str, str],
    title: str = "Rollout benchmark",
    answers: Sequence[Section] = (),
    folder: str = "figures",
    is_complete: bool = True,
) -> str:
    """Return the whole file: `title`, `status`, answers, tables, pictures, then the sections.

    `pictures` has the title of each figure by its name; their files are in `folder`, relative to the file. The status
    is bold if the summary is not complete.
    """
    first = escaped(status) if is_complete else f"> **{escaped(status)}**"
    parts = [f"# {title}", first, *map(markdown_section, answers)]
    parts += [f"## {escaped(view.title)}\n\n{markdown_table(view)}" for view in tables]
    parts += [f"![{escaped(conclusion)}]({quote(folder)}/{name}.svg)" for name, conclusion in pictures.items()]
    parts += map(markdown_section, sections)
    # texts in records of earlier versions may have unprintable characters
    return printable("\n\n".join(parts) + "\n", sys.maxsize)


def markdown_section(section: Section) -> str:
    items = [f"- {escaped(item)}" for item in section.items]
    items += [f"- [{escaped(text)}]({quote(path)})" for text, path in section.links]
    lead = [f"**{escaped(section.lead)}**\n"] if section.lead else []
    command = [f"\n```shell\n{' '.join(section.command.split())}\n```"] if section.command else []
    return "\n".join([f"## {escaped(section.heading)}\n", *lead, *items, *command])


def markdown_table(view: View) -> str:
    rows = [
        [escaped(column.header) for column in view.columns],
        [":--" if column.words else "--:" for column in view.columns],
        *([escaped(cell) for cell in line] for line in view.cells),
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def escaped(text: str) -> str:
    """Return `text` on one line, with Markdown's special characters escaped."""
    text = " ".join(text.split())
    for character in "\\|*<>`~[]&":
        text = text.replace(character, "\\" + character)
    # GitHub does not treat underscores inside a word as markup.
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)
