"""What vLLM's profiler writes, and what becomes of it: whole traces under plain names, or a failure."""

from __future__ import annotations

import gzip
import re
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rollout_bench.plan.profiling import ProfileSettings
from rollout_bench.records.profile import Phase, TraceFile
from rollout_bench.serving.target import ServingFailed

STEP = re.compile(rb"execute_(context|new)_\d+")
"""How vLLM's worker marks a step, in 0.23 and since."""

RANK = re.compile(r"(?:global_)?rank[-_]?(\d+)")

MIB = 1 << 20

ENDING = ".pt.trace.json"
"""How torch's profiler ends the names of its files; .gz follows."""

ASCEND = "_ascend_pt"
"""How torch_npu's profiler ends the names of its folders."""


def profiler_config(settings: ProfileSettings, folder: Path) -> dict[str, Any]:
    """vLLM's `profiler_config` for traces in `folder`."""
    return {
        "profiler": "torch",
        "torch_profiler_dir": str(folder),
        "torch_profiler_record_shapes": settings.record_shapes,
        "torch_profiler_with_stack": settings.with_stack,
        "torch_profiler_with_memory": settings.profile_memory,
        "torch_profiler_use_gzip": True,
        # Else its table of all operators is made at each stop, which takes longer than the steps.
        "torch_profiler_dump_cuda_time_total": False,
        # Its front end would be traced from start to stop, whatever the window is.
        "ignore_frontend": True,
    }


class Traces:
    """The traces of a launch.

    Args:
        folder: where they are kept; it is there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.written = folder / "profiler"
        """Where the profiler is to write."""
        self.written.mkdir()

    def take(self, phase: Phase) -> list[TraceFile]:
        """Moves what the profiler wrote since the last call to where it is kept.

        Raises:
            ServingFailed: it wrote nothing, or a trace that is torn or empty.
        """
        found = [path for path in sorted(self.written.iterdir()) if ENDING in path.name or path.name.endswith(ASCEND)]
        if not found:
            raise ServingFailed(
                "no_trace",
                f"the profiler was stopped and wrote no trace of {phase}",
                "look for 'profiler' in the log; free some space, and check that this torch was built with kineto",
            )
        kept = []
        for number, path in enumerate(found):
            said = RANK.search(path.name)
            rank = int(said[1]) if said else number
            ascend = path.name.endswith(ASCEND)
            name = f"{phase}.rank{rank}" + (ASCEND if ascend else ".trace.json.gz")
            if not ascend:
                check_whole(path)
            target = self._folder / name
            shutil.move(path, target)
            size = sum(f.stat().st_size for f in target.rglob("*") if f.is_file()) if ascend else target.stat().st_size
            source = "torch_npu" if ascend else "torch"
            kept.append(TraceFile(name=name, phase=phase, rank=rank, source=source, size_bytes=size))
        return kept

    def drop(self) -> int:
        """Removes what the profiler wrote since the last call; its size in bytes."""
        size = 0
        for path in self.written.iterdir():
            files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
            size += sum(file.stat().st_size for file in files if not file.name.endswith(".txt"))
            path.unlink() if path.is_file() else shutil.rmtree(path)
        return size

    def close(self) -> None:
        """Removes what else the profiler wrote."""
        shutil.rmtree(self.written, ignore_errors=True)


def phases(settings: ProfileSettings) -> tuple[Phase, ...]:
    """The phases that are traced, each in windows of its own."""
    return ("prefill", "decode") if settings.phase == "both" else (settings.phase,)


def fitting_steps(
    trace_one: Callable[[], object], traces: Traces, phase: Phase, settings: ProfileSettings
) -> tuple[int, str | None]:
    """How many steps of `phase` the size limit allows, and why fewer than wanted if so.

    Has `trace_one` trace one step and throws its trace away. The profiler's first step is slow besides, so this is its
    warm-up.

    Raises:
        ServingFailed: the trace of one step is too large.
    """
    trace_one()
    size = traces.drop()
    each = settings.max_trace_mib / len(phases(settings))
    fits = int(each * MIB / size) if size else settings.steps
    if fits < 1:
        raise ServingFailed(
            "trace_too_large",
            f"the trace of one {phase} step takes {size / MIB:.0f} MiB, and {each:.0f} are allowed",
            "raise profile.max_trace_mib, or set with_stack and profile_memory to false",
        )
    if fits >= settings.steps:
        return settings.steps, None
    return fits, f"{fits} {phase} steps instead of {settings.steps}: the trace of one takes {size / MIB:.1f} MiB."


def check_whole(path: Path) -> None:
    """Raises `ServingFailed` where the trace at `path` is torn or holds no step of the engine."""
    steps, end = 0, b""
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            while content := file.read(1 << 22):
                steps += len(STEP.findall(content))
                end = (end + content)[-64:]
    except (OSError, EOFError, zlib.error) as error:
        raise ServingFailed("torn_trace", f"the trace {path.name} is torn: {error}", _SMALLER) from None
    if not end.rstrip().endswith(b"}"):
        raise ServingFailed("torn_trace", f"the trace {path.name} is torn: it ends in the middle", _SMALLER)
    if not steps:
        raise ServingFailed("empty_trace", f"the trace {path.name} holds no step of the engine", _SMALLER)


_SMALLER = "free some space in the results folder; with fewer profile.steps and with_stack: false a trace is smaller"
