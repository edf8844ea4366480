"""The events table: one row per event of a trace, kept as compressed CSV."""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from rollout_bench.errors import UserError
from rollout_bench.files import write_whole

STEP, HOST, DEVICE = "step", "host", "device"
"""Values of the column `where`: a whole step of the engine, work of the host, work of the device."""

OUTSIDE: Final = -1
"""Number of the step of an event that is in none."""

BETWEEN: Final = " > "
"""What joins the names in a path."""

TEXT: Final = ("trace", "phase", "where", "name", "path", "stream", "shapes", "dtypes")
COUNTS: Final = ("rank", "step")
TIMES: Final = ("start_us", "duration_us", "self_us")

COLUMNS: Final = (
    "trace",
    "phase",
    "rank",
    "step",
    "where",
    "name",
    "path",
    "stream",
    "start_us",
    "duration_us",
    "self_us",
    "shapes",
    "dtypes",
)
"""In the order of the file. Text columns are categorical, without missing values; times are in microseconds."""

ROWS_AT_ONCE: Final = 200_000
"""Rows that are text in memory at a time while a table is written."""


def empty_events() -> pd.DataFrame:
    """An events table without any row."""
    frame = pd.DataFrame({column: pd.Series(dtype="float64") for column in COLUMNS})
    return _typed(frame)


def joined(frames: list[pd.DataFrame]) -> pd.DataFrame:
    """Several events tables as one, still categorical."""
    if not frames:
        return empty_events()
    columns: dict[str, object] = {}
    for column in COLUMNS:
        parts = [frame[column] for frame in frames]
        columns[column] = (
            pd.api.types.union_categoricals(parts) if column in TEXT else np.concatenate([p.to_numpy() for p in parts])
        )
    return pd.DataFrame(columns)


def write_events(path: Path, frame: pd.DataFrame) -> None:
    """Writes an events table whole, as gzip-compressed CSV; equal tables give equal files. Times to the nanosecond.

    Raises:
        UserError: the file system refuses.
    """
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, compresslevel=1, mtime=0) as packed:
        packed.write((",".join(COLUMNS) + "\n").encode())
        for first in range(0, len(frame), ROWS_AT_ONCE):
            rows = frame.iloc[first : first + ROWS_AT_ONCE].loc[:, list(COLUMNS)].round(dict.fromkeys(TIMES, 3))
            packed.write(rows.to_csv(index=False, header=False, lineterminator="\n").encode())
    write_whole(path, buffer.getvalue())


def read_events(path: Path) -> pd.DataFrame:
    """Reads what `write_events` wrote.

    Raises:
        UserError: the file can't be read, is damaged, or lacks columns.
    """
    remedy = "delete it and ask for the summary again: it is made from the traces beside the record"
    try:
        frame = pd.read_csv(
            path,
            compression="gzip",
            dtype=dict.fromkeys(TEXT, "category") | dict.fromkeys(COUNTS, "int64") | dict.fromkeys(TIMES, "float64"),
            keep_default_na=False,
            low_memory=False,
        )
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}", remedy) from None
    except (EOFError, zlib.error, ValueError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: is no whole table of events: {error}", remedy) from None
    missing = [column for column in COLUMNS if column not in frame.columns]
    if missing:
        raise UserError(f"{path}: lacks the column {missing[0]!r}", remedy)
    return _typed(frame.loc[:, list(COLUMNS)])


def _typed(frame: pd.DataFrame) -> pd.DataFrame:
    """The same table with every column's type, so that an empty one is like any other."""
    for column in TEXT:
        if len(frame) == 0:
            frame[column] = pd.Categorical(pd.Series([], dtype="str"))
    return frame.astype(dict.fromkeys(COUNTS, "int64") | dict.fromkeys(TIMES, "float64"))
