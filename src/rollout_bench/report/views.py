"""Tables as plain texts, from columns with definitions and entries with names."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from rollout_bench.contracts.axes import DEFAULT_SETTING, UNKNOWN
from rollout_bench.core.numbers import MISSING

Told = TypeVar("Told", contravariant=True)
Shown = TypeVar("Shown", covariant=True)
T = TypeVar("T")


@dataclass(frozen=True)
class Column(Generic[Told]):
    """A column; `cell` returns the text for an entry's `of`, and `words` means that it is left-aligned.

    Without a `cell`, or without an `of`, the text is the entry's own under this header. `is_speedup`: its cells have a
    ratio with its interval and verdict.
    """

    header: str
    definition: str = ""
    cell: Callable[[Told], str] | None = None
    words: bool = False
    is_speedup: bool = False


@dataclass(frozen=True)
class Entry(Generic[Shown]):
    """One line of a table: `texts` by header, and `of`, which other cells tell of; None if nothing was measured."""

    texts: Mapping[str, str]
    of: Shown | None = None


@dataclass(frozen=True)
class View:
    """One table: `cells` is [lines][columns], and `is_open` whether a page shows it unfolded."""

    title: str
    columns: tuple[Column[object], ...]
    cells: tuple[tuple[str, ...], ...]
    is_open: bool = False


MODEL = Column[object]("model", words=True)
WORKLOAD = Column[object]("workload", words=True)
QUANT = Column[object]("quant", words=True)
SETTING = Column[object]("setting", words=True)
NAMES = (MODEL, WORKLOAD, QUANT, SETTING)

SETS = Column[object](
    "sets",
    "For a setting, the values that differ from the default; for the default, its values of the same keys. "
    "Values in the name of a setting are not repeated.",
    words=True,
)

FLAGS = Column[object](
    "flags",
    "Reasons to distrust launches, each with the number of launches. ! marks an invalid launch, which no "
    "number includes.",
    words=True,
)

LAUNCHES = Column[object](
    "launches",
    "Engine starts: valid / measured / planned (planned only if there is a plan). 2/3/3: one of three "
    "launches is invalid, and no number includes it.",
)
"""First column after the names, in the first table of each mode."""

EMPTY_BECAUSE = Column[object](
    "empty because",
    "The reason for empty cells in this line. An experiment without a valid launch has no numbers and no "
    "comparisons; its flags are the evidence.",
    words=True,
)
"""Last column of tables with such a reason; tables with `FLAGS`, which has the reason as well, omit it."""


def view(kind: str, title: str, columns: Sequence[Column[T]], entries: Sequence[Entry[T]]) -> View:
    """Return the table of `entries`, with columns for names that differ between entries, then `columns`."""
    names: list[Column[object]] = []
    for column in (MODEL, WORKLOAD):
        values = {entry.texts.get(column.header, MISSING) for entry in entries}
        if len(values) == 1:
            title += f", {column.header} {values.pop()}"
        else:
            names.append(column)
    if any(entry.texts.get(QUANT.header) != UNKNOWN for entry in entries):
        names.append(QUANT)
    if any(entry.texts.get(SETTING.header, DEFAULT_SETTING) != DEFAULT_SETTING for entry in entries):
        names.append(SETTING)
    last = [] if FLAGS in columns else [EMPTY_BECAUSE]
    shown: list[Column[T]] = [*names, *columns, *last]
    cells = tuple(tuple(_text(column, entry) for column in shown) for entry in entries)
    heads = tuple(Column[object](c.header, c.definition, None, c.words, c.is_speedup) for c in shown)
    return View(kind + title, heads, cells)


def _text(column: Column[T], entry: Entry[T]) -> str:
    text = None if column.cell is None or entry.of is None else column.cell(entry.of)
    return text or entry.texts.get(column.header) or MISSING


def without_empty(tables: Iterable[View]) -> list[View]:
    """Return `tables` without empty columns and lines, and without tables that have no other columns than names."""
    found = []
    for table in tables:
        telling = [place for place, column in enumerate(table.columns) if column not in NAMES]
        lines = [line for line in table.cells if any(line[place] != MISSING for place in telling)]
        filled = [
            place
            for place, column in enumerate(table.columns)
            if column in NAMES or any(line[place] != MISSING for line in lines)
        ]
        columns = tuple(table.columns[place] for place in filled)
        if any(column not in (*NAMES, EMPTY_BECAUSE) for column in columns):
            cells = tuple(tuple(line[place] for place in filled) for line in lines)
            found.append(replace(table, columns=columns, cells=cells))
    return found
