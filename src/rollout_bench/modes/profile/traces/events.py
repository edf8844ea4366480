"""The table of events: a row for each event of a trace. `rollout-bench trace --help` explains its columns."""

import gzip
from pathlib import Path
from typing import Final

import pandas as pd

from rollout_bench.core.files import write_whole

STEP, HOST, DEVICE = "step", "host", "device"
"""Values of the column `where`: a whole step of the engine, work of the host, work of the device."""

OUTSIDE: Final = -1
"""Step number of an event outside all steps."""

BETWEEN: Final = " > "
"""Separator of the names in a path."""

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
    "dtypes",
)
"""In the order of the file. Texts are never missing."""


def write_events(path: Path, frame: pd.DataFrame) -> None:
    """Write an events table atomically as CSV; equal tables give equal files. Times have nanoseconds.

    It is gzip-compressed if the name of the file ends in .gz.

    Raises:
        UserError: the file system refuses.
    """
    text = frame.to_csv(index=False, columns=list(COLUMNS), lineterminator="\n", float_format="%.3f")
    write_whole(path, gzip.compress(text.encode(), 1, mtime=0) if path.suffix == ".gz" else text.encode())
