"""Time how long a large trace of torch's profiler takes to read, and how much memory it needs at most.

The trace is made of one decode step, copied with other times and numbers until the file is as large as asked.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).resolve().parents[1] / "workflow" / "scripts"
CORES = 2
"""What the promise is made for."""

PROMISED_S, PROMISED_GIB = 120.0, 2.0
"""Of 1 GB of JSON."""

LAYERS = 12


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog="Exit status: 0 whatever the times are; 1 when the trace could not be read."
    )
    parser.add_argument("--gb", type=float, default=1.0, help="10^9 bytes of JSON (default: 1)")
    parser.add_argument("--kind", choices=("cpu", "cuda"), default="cpu", help="what the trace is of (default: cpu)")
    parser.add_argument("--plain", action="store_true", help="leave the file uncompressed")
    parser.add_argument("--read", type=Path, metavar="FILE", help=argparse.SUPPRESS)
    return parser


def main() -> int:
    """Make the trace in a temporary folder and read it in a process of its own, whose memory is then known."""
    arguments = parser().parse_args()
    if arguments.read:
        read(arguments.read)
        return 0
    os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:CORES]))
    with tempfile.TemporaryDirectory(prefix="rollout-bench-") as folder:
        path = Path(folder) / ("trace.json" if arguments.plain else "trace.json.gz")
        size, events = write_trace(path, arguments.gb * 1e9, arguments.kind)
        print(f"{arguments.kind}: {size / 1e9:.2f} GB of JSON, {path.stat().st_size / 1e6:.0f} MB on disk", flush=True)
        print(f"{events:,} events; load {os.getloadavg()[0]:.1f}", flush=True)
        done = subprocess.run([sys.executable, __file__, "--read", str(path)])
    print(f"promised: {PROMISED_S:.0f} s and {PROMISED_GIB} GiB for 1 GB on {CORES} cores")
    return done.returncode


def read(path: Path) -> None:
    """Read and write as `read_trace.py` does, then say what everything up to there took."""
    from rollout_bench.analysis.traces.events import write_events
    from rollout_bench.analysis.traces.trace import read_traces
    from rollout_bench.contracts.inside import TraceFile

    trace = TraceFile(name=path.name, phase="decode", rank=0, source="torch", size_bytes=1)
    begin = time.monotonic()
    events, warnings = read_traces(path.parent, [trace])
    _say(f"read: {len(events):,} rows, {len(warnings)} warnings", begin)
    begin = time.monotonic()
    write_events(path.with_name("events.csv.gz"), events)
    _say("wrote the table", begin)


def _say(what: str, begin: float) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)
    print(f"{what}: {time.monotonic() - begin:.1f} s, at most {peak:.2f} GiB of memory so far", flush=True)


def write_trace(path: Path, size: float, kind: str) -> tuple[int, int]:
    """Write a trace of about `size` bytes of JSON; return its bytes and its events."""
    one = step(kind)
    # One line for each event, which is about as long as Kineto's; numbers that differ from step to step are left open.
    pattern = ",\n".join(json.dumps(event) for event in one)
    pieces = pattern.replace('"@ts', "%(ts)s").replace('@"', "").split("%(ts)s")
    written = events = number = 0
    with path.open("wb") if path.suffix == ".json" else gzip.open(path, "wb", compresslevel=1) as file:
        head = b'{"schemaVersion": 1, "record_shapes": 1, "traceEvents": [\n'
        written += file.write(head)
        while written < size:
            start = 4_334_850_000_000 + number * 100_000
            text = pieces[0] + "".join(_placed(piece, start, number) for piece in pieces[1:])
            written += file.write(((",\n" if number else "") + text).encode())
            number += 1
            events += len(one)
        written += file.write(b'\n], "traceName": "made"}\n')
    return written, events


def _placed(piece: str, start: int, number: int) -> str:
    """Return a piece that begins with an offset, up to the mark `;`.

    An event's time, or with `n` in front its number.
    """
    offset, rest = piece.split(";", 1)
    if offset.startswith("n"):
        return f"{number * 100_000 + int(offset[1:])}{rest}"
    return f"{start + float(offset):.3f}{rest}"


def step(kind: str) -> list[dict[str, Any]]:
    """Return the events of one decode step; times and numbers are marked as `@ts<offset>;@`."""
    events: list[dict[str, Any]] = []
    now = 0.0

    def add(name: str, duration: float, dims: list[Any], category: str = "cpu_op", **arguments: Any) -> None:
        nonlocal now
        known = {"External id": f"@tsn{len(events)};@", "Record function id": 0, "Ev Idx": f"@tsn{len(events)};@"}
        if dims:
            known |= {"Concrete Inputs": [""] * len(dims), "Input type": ["c10::BFloat16"] * len(dims)}
            known |= {"Input Strides": [[1] * len(d) for d in dims], "Input Dims": dims}
        place = {"pid": 0, "tid": 7} if category == "kernel" else {"pid": 1833, "tid": 1833}
        event = {"ph": "X", "cat": category, "name": name, **place, "ts": f"@ts{now:.3f};@", "dur": duration}
        events.append(event | {"args": known | arguments})
        now += 0.4

    add("execute_context_0(0)_generation_32(32)", 90_000.0, [], "user_annotation")
    for _ in range(LAYERS):
        for features in (1280, 768, 4096, 768):
            add("_C::onednn_mm", 30.0, [[32, features], [32, 768], [], []])
            add("aten::item", 2.0, [[]])
            for name in ("aten::to", "aten::_to_copy", "aten::empty_strided", "aten::copy_"):
                add(name, 4.0, [[32, features], [], [], [], [], [], []])
            now += 40
            if kind == "cuda":
                number = f"@tsn{len(events)};@"
                add("cudaLaunchKernel", 2.0, [], "cuda_runtime", correlation=number)
                add("nvjet_tst_192x192_64x4_1x2_h_bz_coopB_TNT", 20.0, [], "kernel", correlation=number, stream=7)
        for name in ("aten::pow", "aten::mean", "aten::sum", "aten::add", "aten::rsqrt", "aten::mul", "aten::slice"):
            add(name, 3.0, [[32, 768], [], []])
            add("aten::as_strided", 1.0, [[32, 768], [], [], []])
            now += 4
    return events


if __name__ == "__main__":
    sys.exit(main())
