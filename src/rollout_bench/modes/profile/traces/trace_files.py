"""Spans of time from the files of torch's and torch_npu's profilers."""

import gzip
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pandas as pd

from rollout_bench.core.errors import UserError

REMEDY: Final = "profile again: move the record that it belongs to away and run the same command"

OPERATOR, ANNOTATION, CALL, KERNEL = "operator", "annotation", "call", "kernel"
"""Kinds of spans: an operator on the host, a marked period, a call of the device's runtime, work of the device."""

KINDS: Final = {
    "cpu_op": OPERATOR,
    "user_annotation": ANNOTATION,
    "cuda_runtime": CALL,
    "cuda_driver": CALL,
    "kernel": KERNEL,
    "gpu_memcpy": KERNEL,
    "gpu_memset": KERNEL,
}
"""Category in the profiler's file -> kind; other categories are ignored."""

COLUMNS: Final = ("kind", "name", "stream", "start_us", "duration_us", "correlation", "number", "dtypes")
"""`correlation` is equal for a kernel and the call that launched it. `number` is the profiler's own, for operators."""


def load_events(path: Path) -> list[dict[str, Any]]:
    """Return the events of a trace in Chromium's "Trace Event Format", plain or gzip-compressed.

    Raises:
        UserError: the file is unreadable, cut off or not JSON, or has no trace events.
    """
    try:
        content = path.read_bytes()
        text = gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
        # The profiler may cut a name in the middle of a character.
        found = json.loads(text.decode(errors="replace"))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: is a damaged or cut off gzip file: {error}", REMEDY) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}", REMEDY) from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is not whole JSON: {error}", REMEDY) from None
    events = found.get("traceEvents") if isinstance(found, dict) else found
    if not isinstance(events, list):
        raise UserError(f"{path}: is JSON without traceEvents, so no trace", REMEDY)
    return [event for event in events if isinstance(event, dict)]


def spans_of(events: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Return the spans among the events of a trace, with the columns `COLUMNS`."""
    rows = []
    for event in events:
        kind, arguments = KINDS.get(str(event.get("cat"))), event.get("args")
        if kind and event.get("ph") == "X":
            args = arguments if isinstance(arguments, dict) else {}
            types = json.dumps(args["Input type"], separators=(",", ":")) if args.get("Input type") else ""
            place = kind, str(event.get("name", "")), f"{event.get('pid', '')}/{event.get('tid', '')}"
            numbers = event.get("ts"), event.get("dur"), args.get("correlation"), args.get("External id")
            rows.append((*place, *numbers, types))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def in_order(spans: pd.DataFrame) -> pd.DataFrame:
    """Return spans by time, enclosing ones first, in microseconds since the first. Without a duration they are empty.

    Spans of the same time are in the order of the profiler's numbers, then of names.
    """
    numbers = spans[["start_us", "duration_us", "correlation", "number"]].apply(pd.to_numeric, errors="coerce")
    spans = spans.assign(**numbers).dropna(subset=["start_us"])
    spans["duration_us"] = spans["duration_us"].clip(lower=0.0).fillna(0.0)
    spans["start_us"] -= spans["start_us"].min()
    by = ["start_us", "duration_us", "number", "name", "kind"]
    return spans.sort_values(by, ascending=[True, False, True, True, True], ignore_index=True)
