"""Files of profilers: torch_npu's CSV files as tables, and trace events one after the other.

Not yet tested on a real NPU: the columns are the known ones of torch_npu, in the spellings of several versions.
Format: "Trace Event Format" of the Chromium project; an object with `traceEvents`, or only that array.
"""

from __future__ import annotations

import codecs
import gzip
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

import pandas as pd

from rollout_bench.core.errors import UserError

OUTPUT: Final = "ASCEND_PROFILER_OUTPUT"
KERNELS, STATISTIC, STEP_TIMES, VIEW = (
    "kernel_details.csv",
    "op_statistic.csv",
    "step_trace_time.csv",
    "trace_view.json",
)

_NOTHING: Final = frozenset({"", "N/A", "nan"})

_KERNEL_COLUMNS: Final = {
    "step": (("Step Id", "Step ID"), False),
    "device": (("Device_id", "Device ID"), False),
    "stream": (("Stream ID", "Stream Id"), False),
    "name": (("Name",), True),
    "type": (("Type",), True),
    "core": (("Accelerator Core",), False),
    "start": (("Start Time(us)",), True),
    "duration": (("Duration(us)",), True),
    "wait": (("Wait Time(us)",), False),
    "blocks": (("Block Num", "Block Dim"), False),
    "shapes": (("Input Shapes",), False),
    "dtypes": (("Input Data Types",), False),
}
"""Our name -> the spellings in the file, and whether the column is required."""


def output_folder(path: Path) -> Path:
    """Return the folder of CSV files in torch_npu's output.

    Raises:
        UserError: the folder or its kernels are missing, because the raw data were not analysed.
    """
    folder = path / OUTPUT if path.name != OUTPUT else path
    if not (folder / KERNELS).is_file():
        raise UserError(
            f"{folder / KERNELS}: is missing, so what torch_npu recorded was not analysed",
            "in the engine's Python: from torch_npu.profiler.profiler import analyse; "
            f"analyse(profiler_path={str(path)!r}); then run the same command again",
        )
    return folder


def read_kernels(folder: Path) -> pd.DataFrame:
    """Return `kernel_details.csv` as text, with the columns of `_KERNEL_COLUMNS`.

    Times are text as well, so that times of day keep their nanoseconds. shapes and dtypes are JSON lists or "".

    Raises:
        UserError: the file is unreadable, lacks a column, or has no row.
    """
    path = folder / KERNELS
    content = _read(path)
    columns = {}
    for ours, (spellings, needed) in _KERNEL_COLUMNS.items():
        spelling = next((s for s in spellings if s in content.columns), None)
        if spelling is None and needed:
            raise UserError(f"{path}: lacks the column {spellings[0]!r}", "see that torch_npu's version is a known one")
        columns[ours] = "" if spelling is None else content[spelling].where(~content[spelling].isin(_NOTHING), "")
    kernels = pd.DataFrame(columns, index=content.index)
    if kernels.empty:
        raise UserError(f"{path}: holds no kernel", "see that the profiler runs while the engine computes")
    kernels["shapes"] = kernels["shapes"].map(_shapes)
    kernels["dtypes"] = kernels["dtypes"].map(_types)
    return kernels


def totals_by_type(folder: Path) -> dict[str, float] | None:
    """Return microseconds by operator type in `op_statistic.csv`; None without that file.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / STATISTIC
    if not path.is_file():
        return None
    content = _read(path)
    if not {"OP Type", "Total Time(us)"} <= set(content.columns):
        raise UserError(f"{path}: lacks the columns 'OP Type' and 'Total Time(us)'", "analyse the raw data again")
    total = pd.to_numeric(content["Total Time(us)"], errors="coerce").fillna(0.0)
    return {str(kind): float(us) for kind, us in total.groupby(content["OP Type"]).sum().items()}


def busy_time(folder: Path) -> float | None:
    """Return the microseconds of device work, summed over all rows of `step_trace_time.csv`; None without that file.

    Device work is computing plus communication that does not overlap with it.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / STEP_TIMES
    if not path.is_file():
        return None
    content = _read(path)
    wanted = ["Computing", "Communication(Not Overlapped)"]
    missing = [column for column in wanted if column not in content.columns]
    if missing:
        raise UserError(f"{path}: lacks the column {missing[0]!r}", "analyse the raw data again")
    return float(content[wanted].apply(pd.to_numeric, errors="coerce").fillna(0.0).to_numpy().sum())


def _read(path: Path) -> pd.DataFrame:
    """Return a CSV file as text, without the profiler's blanks and tabs around values."""
    try:
        content = pd.read_csv(path, dtype=str, keep_default_na=False, encoding_errors="replace", index_col=False)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}", "analyse the raw data again") from None
    except ValueError as error:  # base class of pandas' errors for invalid CSV
        raise UserError(f"{path}: is no table: {error}", "analyse the raw data again") from None
    content.columns = content.columns.str.strip()
    return pd.DataFrame({column: content[column].str.strip() for column in content.columns})


def _shapes(text: str) -> str:
    """Return `"4,4096;4096,12288"` as JSON; quotes and brackets are ignored."""
    if not re.search(r"\d", text):
        return ""
    parts = [[int(n) for n in re.findall(r"\d+", part)] for part in text.split(";")]
    return json.dumps(parts, separators=(",", ":"))


def _types(text: str) -> str:
    bare = text.strip('"')
    return json.dumps(bare.split(";"), separators=(",", ":")) if bare else ""


CHUNK_BYTES = 4 << 20
LONGEST = 64 << 20
"""Maximum characters of one event, or of one value beside the events."""

REMEDY = "profile again: delete the record that it belongs to and run the same command"

_GZIP = b"\x1f\x8b"
_FILLER = re.compile(r"[\s,]*")
_SPACE = re.compile(r"\s*")


def trace_events(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the events of a trace, plain or gzip-compressed, in the file's order; non-objects are skipped.

    Raises:
        UserError: the file is unreadable, empty, cut off or not JSON, or has no trace events.
    """
    try:
        with path.open("rb") as file:
            head = file.read(2)
            if not head:
                raise UserError(f"{path}: is empty", REMEDY)
            file.seek(0)
            source = cast(BinaryIO, gzip.GzipFile(fileobj=file)) if head == _GZIP else file
            yield from _Reader(path, source).events()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: is a damaged or cut off gzip file: {error}", REMEDY) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}", REMEDY) from None


class _Reader:
    """Read a JSON file through a text buffer that holds the next part.

    ijson is about as fast, but refuses the whole file for one NaN or one integer beyond 64 bits. torch_npu's traces may
    have both, since Python's json writes them. A damaged file with deep nesting would also use all memory.
    """

    def __init__(self, path: Path, source: BinaryIO) -> None:
        self._path = path
        self._source = source
        # The profiler may cut a name in the middle of a character.
        self._characters = codecs.getincrementaldecoder("utf-8")("replace")
        self._decode = json.JSONDecoder().raw_decode
        self._text = ""
        self._at = 0
        self._ended = False

    def events(self) -> Iterator[dict[str, Any]]:
        opening = self._peek(_SPACE)
        if opening == "[":
            yield from self._array()
        elif opening == "{":
            yield from self._object()
        else:
            raise self._error("is not JSON")

    def _object(self) -> Iterator[dict[str, Any]]:
        self._at += 1
        while (mark := self._peek(_FILLER)) != "}":
            if mark != '"':
                raise self._error("is not JSON" if mark else "ends in the middle")
            key = self._value()
            if self._peek(_SPACE) != ":":
                raise self._error("is not JSON")
            self._at += 1
            if key == "traceEvents" and self._peek(_SPACE) == "[":
                yield from self._array()
                return
            self._peek(_SPACE)
            self._value()
        raise UserError(f"{self._path}: is JSON without traceEvents, so no trace", REMEDY)

    def _array(self) -> Iterator[dict[str, Any]]:
        self._at += 1
        decode = self._decode
        while True:
            # Most events are complete in the buffer, so most of the time is spent in this loop.
            text, at = self._text, self._at
            skip = _FILLER.match
            try:
                while True:
                    start = cast("re.Match[str]", skip(text, at)).end()
                    event, at = decode(text, start)
                    if type(event) is dict:
                        yield event
            except ValueError:
                self._at = start
            except RecursionError:
                raise self._error("is not a trace: it nests too deep") from None
            mark = self._peek(_FILLER)
            if mark == "]":
                self._at += 1
                return
            if not mark:
                raise self._error("ends in the middle")
            event = self._value()
            if isinstance(event, dict):
                yield event

    def _value(self) -> Any:
        """Return the next value, which begins at the buffer's position."""
        while True:
            try:
                value, at = self._decode(self._text, self._at)
            except ValueError:
                if self._ended or len(self._text) - self._at > LONGEST:
                    raise self._error("ends in the middle or is not JSON") from None
                self._more()
                continue
            except RecursionError:
                raise self._error("is not a trace: it nests too deep") from None
            if at < len(self._text) or self._ended:  # a number could go on
                self._at = at
                return value
            self._more()

    def _peek(self, filler: re.Pattern[str]) -> str:
        """Return the next character after the filler, "" at the end of the file."""
        while True:
            self._at = cast("re.Match[str]", filler.match(self._text, self._at)).end()
            if self._at < len(self._text):
                return self._text[self._at]
            if self._ended:
                return ""
            self._more()

    def _more(self) -> None:
        """Drop the read part of the buffer and add at least as much as the rest, so long values need linear time."""
        piece = self._source.read(max(CHUNK_BYTES, len(self._text) - self._at))
        self._ended = not piece
        self._text = self._text[self._at :] + self._characters.decode(piece, final=self._ended)
        self._at = 0

    def _error(self, what: str) -> UserError:
        return UserError(f"{self._path}: {what}", REMEDY)
