"""One table as plain text cells, the same for Markdown and for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rollout_bench.reporting.columns import FLAGS, MODEL, QUANT, WORKLOAD, Column, Line
from rollout_bench.reporting.numbers import MISSING

EMPTY_BECAUSE = Column(
    "empty because",
    "Why cells of the line are empty. What an experiment without a valid launch measured is not shown, and nothing is "
    "compared with it; its flags say what was seen.",
    lambda line: line.get("empty_because") or MISSING,
    words=True,
)
"""The last column, in tables with a line that has something in it, but beside `FLAGS`, which say the same."""


@dataclass(frozen=True)
class View:
    """One table: `cells` is [lines][columns]."""

    title: str
    columns: tuple[Column, ...]
    cells: tuple[tuple[str, ...], ...]


def tables_of(lines: Sequence[Line]) -> list[tuple[str, list[Line]]]:
    """The lines that stand in one table, of one mode and platform, with the title of each."""
    return [
        (f"{mode}, {platform}", [line for line in lines if (line["mode"], line["platform"]) == (mode, platform)])
        for mode, platform in dict.fromkeys((line["mode"], line["platform"]) for line in lines)
    ]


def view(kind: str, title: str, columns: Sequence[Column], lines: Sequence[Line]) -> View:
    """The table of `lines` with `columns` after those of names that are not the same in all of them.

    What a line has as `empty_because` is told in the last column.
    """
    names: list[Column] = []
    for column in (MODEL, WORKLOAD):
        values = {column.cell(line) for line in lines}
        if len(values) == 1:
            title += f", {column.header} {values.pop()}"
        else:
            names.append(column)
    last = [EMPTY_BECAUSE] if FLAGS not in columns and any(line.get("empty_because") for line in lines) else []
    shown = (*names, QUANT, *columns, *last)
    return View(kind + title, shown, tuple(tuple(column.cell(line) for column in shown) for line in lines))
