"""The events table and its raw columns: one row per event of a trace, stored as compressed CSV."""

from __future__ import annotations

import gzip
import io
import json
import math
import zlib
from array import array
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from rollout_bench.core.errors import UserError
from rollout_bench.core.files import write_whole

STEP, HOST, DEVICE = "step", "host", "device"
"""Values of the column `where`: a whole step of the engine, work of the host, work of the device."""

OUTSIDE: Final = -1
"""Step number of an event outside all steps."""

BETWEEN: Final = " > "
"""Separator of the names in a path."""

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
"""Rows that are held as text in memory while a table is written."""


def empty_events() -> pd.DataFrame:
    """Return an events table without rows."""
    frame = pd.DataFrame({column: pd.Series(dtype="float64") for column in COLUMNS})
    return _typed(frame)


def joined(frames: list[pd.DataFrame]) -> pd.DataFrame:
    """Return several events tables as one, still categorical."""
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
    """Write an events table atomically as gzip-compressed CSV; equal tables give equal files. Times have nanoseconds.

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
    """Read a table from `write_events`.

    Raises:
        UserError: the file is unreadable or damaged, or lacks columns.
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
    """Return the table with every column's type, so that an empty table has the same types."""
    for column in TEXT:
        if len(frame) == 0:
            frame[column] = pd.Categorical(pd.Series([], dtype="str"))
    return frame.astype(dict.fromkeys(COUNTS, "int64") | dict.fromkeys(TIMES, "float64"))


OPERATOR, ANNOTATION, RUNTIME, KERNEL, DEVICE_ANNOTATION, LAUNCH_POINT = range(6)
"""Kinds of events: an operator on the host, a marked period, a call of the device's runtime, work of the device, a
marked period of the device, and the begin of a flow to the device."""

KINDS: Final = {
    "cpu_op": OPERATOR,
    "user_annotation": ANNOTATION,
    "cuda_runtime": RUNTIME,
    "cuda_driver": RUNTIME,
    "kernel": KERNEL,
    "gpu_memcpy": KERNEL,
    "gpu_memset": KERNEL,
    "gpu_user_annotation": DEVICE_ANNOTATION,
}
"""Category in torch's profiler -> kind; other categories are ignored."""

FLOW: Final = "async_npu"
"""Category of torch_npu's flows from an operator to its kernels."""

FURTHEST_US = 1e17
"""Times beyond this value, three thousand years, are invalid."""


class Words:
    """Distinct texts by number."""

    def __init__(self) -> None:
        self.texts: list[str] = [""]
        self._numbers: dict[str, int] = {"": 0}

    def number(self, text: str) -> int:
        known = self._numbers.get(text)
        if known is None:
            known = self._numbers[text] = len(self.texts)
            self.texts.append(text)
        return known


class _Lists(Words):
    """JSON texts of lists, by number; each distinct list is encoded once."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[str, int] = {}

    def number_of(self, value: Any) -> int:
        if not isinstance(value, list):
            return self.number(value) if isinstance(value, str) else 0
        key = repr(value)
        known = self._seen.get(key)
        if known is None:
            known = self._seen[key] = self.number(json.dumps(value, separators=(",", ":")))
        return known


@dataclass
class RawEvents:
    """Events with a begin and a duration.

    Attributes:
        offset: whole microseconds subtracted from every time, so that times of day, given as text, keep nanoseconds.
        unfinished: events without an end, which count as 0 us long.
    """

    offset: int = 0
    unfinished: int = 0
    events_seen: int = 0
    kind: array[int] = field(default_factory=lambda: array("b"))
    name: array[int] = field(default_factory=lambda: array("i"))
    thread: array[int] = field(default_factory=lambda: array("i"))
    start: array[float] = field(default_factory=lambda: array("d"))
    duration: array[float] = field(default_factory=lambda: array("d"))
    shapes: array[int] = field(default_factory=lambda: array("i"))
    dtypes: array[int] = field(default_factory=lambda: array("i"))
    correlation: array[int] = field(default_factory=lambda: array("q"))
    external: array[int] = field(default_factory=lambda: array("q"))
    names: Words = field(default_factory=Words)
    threads: Words = field(default_factory=Words)
    dims: _Lists = field(default_factory=_Lists)
    types: _Lists = field(default_factory=_Lists)
    flow_starts: dict[str, int] = field(default_factory=dict)
    flow_ends: dict[str, float] = field(default_factory=dict)
    _halves: defaultdict[int, list[tuple[float, str, dict[str, Any]]]] = field(
        default_factory=lambda: defaultdict(list)
    )

    def __len__(self) -> int:
        return len(self.kind)

    def add(self, event: dict[str, Any]) -> None:
        """Add an event if it is of a known kind and has a time."""
        self.events_seen += 1
        phase = event.get("ph")
        if phase == "X":
            kind = _kind(event)
            start = None if kind is None else self.time(event.get("ts"))
            if kind is not None and start is not None:
                self._append(event, kind, start, self._length(event.get("dur")))
        elif phase in ("B", "E"):
            start = self.time(event.get("ts"))
            if start is not None:
                self._halves[self._thread(event)].append((start, phase, event))
        elif phase in ("s", "f") and event.get("cat") == FLOW:
            self._flow(event, phase)

    def add_kernel(self, event: dict[str, Any], start: float, duration: Any, shapes: str, dtypes: str) -> None:
        """Add a kernel: `event` has its name, pid and tid; `shapes` and `dtypes` are JSON texts."""
        self._append(event, KERNEL, start, self._length(duration))
        self.shapes[-1], self.dtypes[-1] = self.dims.number(shapes), self.types.number(dtypes)

    def busiest_thread(self, events: npt.NDArray[np.int64]) -> int:
        """Return the number of the thread with most of these events; of several, the busiest."""
        thread, duration = self.array("thread")[events], self.array("duration")[events]
        counts, lengths = np.bincount(thread), np.bincount(thread, weights=duration)
        numbers: list[int] = np.unique(thread).tolist()
        return max(numbers, key=lambda n: (counts[n], lengths[n], self.threads.texts[n]))

    def finish(self) -> None:
        """Pair begins with ends, and shift all times so that the first event is at 0; call it after the last event.

        An end belongs to the innermost begin of the same name on the same thread.
        """
        for halves in self._halves.values():
            # At equal times ends come first, so that adjacent events do not nest.
            halves.sort(key=lambda half: (half[0], half[1] == "B", str(half[2].get("name"))))
            self._pair(halves)
        self._halves.clear()
        if len(self):
            # Small numbers keep the profiler's nanoseconds in sums.
            start = self.array("start")
            first = float(start.min())
            start -= first
            self.flow_ends = {flow: time - first for flow, time in self.flow_ends.items()}

    def array(self, column: str) -> npt.NDArray[Any]:
        """Return a column without a copy."""
        values: array[Any] = getattr(self, column)
        return np.frombuffer(values, dtype=np.dtype(values.typecode)) if values else np.zeros(0, values.typecode)

    def time(self, value: Any) -> float | None:
        """Return microseconds after `offset` from a number, or from torch_npu's text; None if it is not a time."""
        try:
            part = 0.0
            if isinstance(value, str):
                text, _, rest = value.strip().partition(".")
                value, part = int(text), float(f"0.{rest}") if rest else 0.0
            if type(value) not in (int, float) or not abs(value) < FURTHEST_US:
                return None
        except (ValueError, OverflowError):
            return None
        return float(value - self.offset) + part

    def _length(self, value: Any) -> float:
        try:
            length = float(value)
        except (TypeError, ValueError, OverflowError):
            length = math.nan
        if 0 <= length < FURTHEST_US:
            return length
        self.unfinished += 1
        return 0.0

    def _append(self, event: dict[str, Any], kind: int, start: float, duration: float) -> None:
        arguments = event.get("args")
        correlation = external = -1
        dims: Any = None
        types: Any = None
        if type(arguments) is dict:
            dims, types = arguments.get("Input Dims"), arguments.get("Input type")
            correlation, external = _count(arguments.get("correlation")), _count(arguments.get("External id"))
        self.kind.append(kind)
        self.name.append(self.names.number(str(event.get("name", ""))))
        self.thread.append(self._thread(event))
        self.start.append(start)
        self.duration.append(duration)
        self.shapes.append(self.dims.number_of(dims) if dims else 0)
        self.dtypes.append(self.types.number_of(types) if types else 0)
        self.correlation.append(correlation)
        self.external.append(external)

    def _thread(self, event: dict[str, Any]) -> int:
        return self.threads.number(f"{event.get('pid', '')}/{event.get('tid', '')}")

    def _flow(self, event: dict[str, Any], phase: str) -> None:
        time = self.time(event.get("ts"))
        if time is None:
            return
        if phase == "f":
            self.flow_ends[str(event.get("id"))] = time
        else:
            self.flow_starts[str(event.get("id"))] = len(self)
            self._append({"pid": event.get("pid"), "tid": event.get("tid")}, LAUNCH_POINT, time, 0.0)

    def _pair(self, halves: list[tuple[float, str, dict[str, Any]]]) -> None:
        waiting: list[tuple[float, dict[str, Any]]] = []
        ends: list[tuple[float, dict[str, Any]]] = []

        def close(end: float, last: dict[str, Any]) -> bool:
            for i in range(len(waiting) - 1, -1, -1):
                start, first = waiting[i]
                if last.get("name") in (None, first.get("name")):
                    del waiting[i]
                    self._half(first, start, end - start)
                    return True
            return False

        for time, phase, event in halves:
            if phase == "B":
                waiting.append((time, event))
                early = next(
                    (i for i, e in enumerate(ends) if e[0] == time and e[1].get("name") == event.get("name")), -1
                )
                if early >= 0:
                    close(*ends.pop(early))
            elif not close(time, event):
                ends.append((time, event))
        for start, event in waiting:
            self.unfinished += 1
            self._half(event, start, 0.0)

    def _half(self, event: dict[str, Any], start: float, duration: float) -> None:
        kind = _kind(event)
        if kind is not None:
            self._append(event, kind, start, duration)


def _kind(event: dict[str, Any]) -> int | None:
    category = event.get("cat")
    return KINDS.get(category) if isinstance(category, str) else None


def _count(value: Any) -> int:
    return value if type(value) is int and 0 <= value < 1 << 62 else -1
