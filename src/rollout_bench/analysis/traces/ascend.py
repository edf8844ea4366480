"""Events table from the output of torch_npu's profiler. Tested on files in its layout, not yet on a real NPU."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from rollout_bench.analysis.traces.categories import rule_sets
from rollout_bench.analysis.traces.event_table import Rows, table
from rollout_bench.analysis.traces.events import ANNOTATION, DEVICE, HOST, KERNEL, OPERATOR, RawEvents
from rollout_bench.analysis.traces.threads import Nested, nested, union
from rollout_bench.analysis.traces.torch import device_steps
from rollout_bench.analysis.traces.trace_files import (
    KERNELS,
    VIEW,
    busy_time,
    output_folder,
    read_kernels,
    totals_by_type,
    trace_events,
)
from rollout_bench.analysis.traces.trace_steps import (
    StepWindows,
    by_attention,
    by_number,
    is_numbered_step,
    phase_of,
    windows,
)
from rollout_bench.contracts.inside import LinearShape, Phase
from rollout_bench.core.errors import UserError

Indices = npt.NDArray[np.int64]

MISMATCH = 0.01
"""Maximum relative difference between two of the profiler's files for the same time."""


def read_ascend(
    path: Path, trace: str, rank: int, phase: Phase, linears: Sequence[LinearShape] = ()
) -> tuple[pd.DataFrame, list[str]]:
    """Read torch_npu's output for one worker.

    Args:
        path: the folder that holds `ASCEND_PROFILER_OUTPUT`.
        trace: its name in the table.
        rank: rank of the worker.
        phase: phase of its steps if no annotation has it.
        linears: the linear layers of one rank: without other information, their number separates the steps.

    Returns:
        The events table, in which a kernel's name is its type and its path ends in its own name; and warnings.

    Raises:
        UserError: files are missing or damaged, or the steps cannot be separated.
    """
    folder = output_folder(path)
    details = read_kernels(folder)
    raw = RawEvents(offset=_whole(details["start"].iloc[0]))
    kernels = _add_kernels(raw, details, folder / KERNELS)
    warnings = []
    if (folder / VIEW).is_file():
        for event in trace_events(folder / VIEW):
            raw.add(event)
    else:
        warnings.append(f"{trace}: {VIEW} is missing: it is unknown what launched the kernels")
    raw.finish()
    names = raw.names.texts
    opens = {number for number, text in enumerate(names) if phase_of(text) or is_numbered_step(text)}
    tree = nested(raw, opens)
    launch = _launch_points(raw, kernels)
    steps, of_kernel = _steps(raw, kernels, launch, details, phase, linears, path, warnings)
    rows = _rows(raw, tree, kernels, launch, steps, of_kernel, details, opens)
    steps = device_steps(raw, kernels, of_kernel, steps)
    warnings += _disagreements(raw, kernels, details, folder, trace)
    return table(raw, rows, steps, trace, rank), warnings


def _whole(time: str) -> int:
    digits = time.partition(".")[0]
    return int(digits) if digits.isdigit() else 0


def _add_kernels(raw: RawEvents, details: pd.DataFrame, path: Path) -> Indices:
    for row in details.itertuples(index=False):
        event = {"name": row.type or row.name, "pid": f"npu {row.device}", "tid": row.stream}
        start = raw.time(row.start)
        if start is None:
            raise UserError(f"{path}: {row.start!r} is no time", "analyse the raw data again")
        raw.add_kernel(event, start, row.duration, str(row.shapes), str(row.dtypes))
    return np.arange(len(details), dtype=np.int64)


def _launch_points(raw: RawEvents, kernels: Indices) -> Indices:
    """Return the event at which the flow to each kernel begins, -1 without one. A flow ends when its kernel begins."""
    begins = {round(raw.flow_ends[i], 3): event for i, event in raw.flow_starts.items() if i in raw.flow_ends}
    start = raw.array("start")[kernels]
    return np.array([begins.get(round(time, 3), -1) for time in start.tolist()], dtype=np.int64)


def _steps(
    raw: RawEvents,
    kernels: Indices,
    launch: Indices,
    details: pd.DataFrame,
    phase: Phase,
    linears: Sequence[LinearShape],
    path: Path,
    warnings: list[str],
) -> tuple[StepWindows, Indices]:
    """Return the steps, and the step of each kernel.

    Steps come from vLLM's annotations, the profiler's marks, its step numbers, or attention kernels, in this order.
    """
    start, duration = raw.array("start"), raw.array("duration")
    name = raw.array("name")
    own = {number: p for number, text in enumerate(raw.names.texts) if (p := phase_of(text))}
    marks = own or {number: phase for number, text in enumerate(raw.names.texts) if is_numbered_step(text)}
    opens = np.flatnonzero(np.isin(name, np.array(list(marks), dtype=name.dtype)) & (raw.array("kind") != KERNEL))
    if len(opens):
        opens = opens[raw.array("thread")[opens] == raw.busiest_thread(opens)]
        steps = windows(start[opens], duration[opens], [marks[n] for n in name[opens].tolist()])
        steps = steps.lasting_until(float((start + duration)[kernels].max()))
        launched = np.where(launch >= 0, start[np.maximum(launch, 0)], start[kernels])
        return steps, steps.at(launched)
    numbers = details["step"].to_numpy()
    found = by_number(start[kernels], duration[kernels], numbers, phase)
    if found is None:
        attention = _is_attention(details)
        layers = max((shape.layers for shape in linears), default=0)
        found = by_attention(start[kernels], duration[kernels], attention, layers, phase)
        if found is None:
            raise UserError(
                f"{path}: nothing tells one step from the next: no annotation, no Step Id, and {int(attention.sum())} "
                f"attention kernels are no multiple of the model's {layers} layers",
                "profile again with a schedule, so that torch_npu numbers its steps",
            )
        warnings.append(f"{path.name}: steps are told apart by counting attention kernels, {layers} in each")
    return found, found.at(start[kernels])


def _is_attention(details: pd.DataFrame) -> npt.NDArray[np.bool_]:
    patterns = [rule.match for rule in rule_sets()["ascend"].rules if rule.category == "attention"]
    text = details["type"].where(details["type"] != "", details["name"])
    return text.map(lambda word: any(re.search(pattern, word) for pattern in patterns)).to_numpy(dtype=bool)


def _rows(
    raw: RawEvents,
    tree: Nested,
    kernels: Indices,
    launch: Indices,
    steps: StepWindows,
    of_kernel: Indices,
    details: pd.DataFrame,
    opens: set[int],
) -> Rows:
    kind, start = raw.array("kind"), raw.array("start")
    shown = ((kind == OPERATOR) | (kind == ANNOTATION)) & ~np.isin(raw.array("name"), list(opens))
    on_host = np.flatnonzero(shown)
    path = np.where(launch >= 0, tree.path[np.maximum(launch, 0)], 0)
    for i, (name, kind_of) in enumerate(zip(details["name"], details["type"], strict=True)):
        if kind_of and name and name != kind_of:
            path[i] = tree.paths.below(int(path[i]), raw.names.number(name))
    return Rows(
        event=np.concatenate([on_host, kernels]),
        where=np.repeat([HOST, DEVICE], [len(on_host), len(kernels)]),
        step=np.concatenate([steps.at(start[on_host]), of_kernel]),
        path=np.concatenate([tree.path[on_host], path]),
        paths=tree.paths,
        self_us=np.concatenate([tree.self_us[on_host], raw.array("duration")[kernels]]),
        source=np.concatenate([on_host, kernels]),
    )


def _disagreements(raw: RawEvents, kernels: Indices, details: pd.DataFrame, folder: Path, trace: str) -> list[str]:
    start, duration = raw.array("start")[kernels], raw.array("duration")[kernels]
    said = []
    statistic = totals_by_type(folder)
    if statistic is not None:
        text = details["type"].where(details["type"] != "", details["name"])
        ours = pd.Series(duration).groupby(text.to_numpy()).sum()
        for kind in sorted({*statistic, *ours.index}):
            theirs, mine = statistic.get(kind, 0.0), float(ours.get(kind, 0.0))
            if abs(theirs - mine) > MISMATCH * max(theirs, mine):
                said.append(f"{trace}: {kind} took {theirs:.1f} us by op_statistic.csv, {mine:.1f} us by its kernels")
    busy = busy_time(folder)
    mine = union(start, duration)
    if busy is not None and abs(busy - mine) > MISMATCH * max(busy, mine):
        said.append(f"{trace}: the device worked {busy:.1f} us by step_trace_time.csv, {mine:.1f} us by its kernels")
    if raw.unfinished:
        said.append(f"{trace}: {raw.unfinished} events have no end; they count as 0 us long")
    return said
