"""One table as plain text cells, the same for Markdown and for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rollout_bench.reporting.columns import MODEL, QUANT, WORKLOAD, Column, Line


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
    """The table of `lines` with `columns` after those of names that are not the same in all of them."""
    names: list[Column] = []
    for column in (MODEL, WORKLOAD):
        values = {column.cell(line) for line in lines}
        if len(values) == 1:
            title += f", {column.header} {values.pop()}"
        else:
            names.append(column)
    shown = (*names, QUANT, *columns)
    return View(kind + title, shown, tuple(tuple(column.cell(line) for column in shown) for line in lines))
