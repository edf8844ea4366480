"""Events table from traces of torch's profiler, CPU and CUDA, and the launcher of each kernel."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from rollout_bench.analysis.traces.event_table import Rows, table
from rollout_bench.analysis.traces.events import (
    ANNOTATION,
    DEVICE,
    DEVICE_ANNOTATION,
    HOST,
    KERNEL,
    OPERATOR,
    OUTSIDE,
    RUNTIME,
    RawEvents,
)
from rollout_bench.analysis.traces.threads import Nested, nested
from rollout_bench.analysis.traces.trace_files import REMEDY, trace_events
from rollout_bench.analysis.traces.trace_steps import WHOLE_STEP, StepWindows, phase_of, windows, within
from rollout_bench.contracts.inside import Phase
from rollout_bench.core.errors import UserError

Indices = npt.NDArray[np.int64]

GRAPH_LAUNCHES = frozenset({"cudaGraphLaunch", "cuGraphLaunch"})
"""Calls that launch many kernels at once, without a known operator for each."""


def launchers(raw: RawEvents, kernels: Indices) -> Indices:
    """Return the host's event that launched each kernel: the runtime call, or else its operator; -1 without either."""
    kind = raw.array("kind")
    calls = np.flatnonzero(kind == RUNTIME)
    operators = np.flatnonzero(kind == OPERATOR)
    by_call = _matched(raw.array("correlation")[calls], calls, raw.array("correlation")[kernels])
    by_operator = _matched(raw.array("external")[operators], operators, raw.array("external")[kernels])
    return np.where(by_call >= 0, by_call, by_operator)


def _matched(keys: Indices, events: Indices, wanted: Indices) -> Indices:
    """Return the event of each wanted key, -1 without one; -1 is not a key."""
    if not len(keys):
        return np.full(len(wanted), -1, dtype=np.int64)
    order = np.argsort(keys, kind="stable")
    keys, events = keys[order], events[order]
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where((keys[at] == wanted) & (wanted >= 0), events[at], -1)


def steps_of(raw: RawEvents, kernels: Indices, launcher: Indices, host: StepWindows, device: Indices) -> Indices:
    """Return the step of each kernel.

    It is the step of the launcher, else the step marked on the device at that time, else the step on the host at that
    time.

    Args:
        host: steps from the host's annotations.
        device: annotations of steps on the device.
    """
    start = raw.array("start")
    known = launcher >= 0
    step = np.where(known, host.at(start[np.maximum(launcher, 0)]), host.at(start[kernels]))
    marks = _device_marks(raw, device, host)
    if marks is not None:
        step = np.where(known, step, marks.at(start[kernels]))
    return step.astype(np.int64)


def _device_marks(raw: RawEvents, device: Indices, host: StepWindows) -> StepWindows | None:
    """Return the device's annotations of steps as windows, if a stream has one for each of the host's; else None."""
    if not len(device):
        return None
    thread, start, duration = raw.array("thread"), raw.array("start"), raw.array("duration")
    for stream in np.unique(thread[device]):
        marks = device[thread[device] == stream]
        if len(marks) == len(host):
            order = marks[np.argsort(start[marks], kind="stable")]
            return replace(host, begin=start[order], end=(start + duration)[order])
    return None


def device_steps(raw: RawEvents, kernels: Indices, step: Indices, host: StepWindows) -> StepWindows:
    """Return the steps on the device: each begins with its first kernel on the busiest stream.

    The host runs ahead of the device, so its annotation has the time of the launch, not of the computation. Both
    proceed at the same rate. The host's windows are returned if a step has no kernel on that stream.
    """
    start, duration, thread = raw.array("start"), raw.array("duration"), raw.array("thread")
    works = np.bincount(thread[kernels], weights=duration[kernels])
    main = max(np.unique(thread[kernels]).tolist(), key=lambda n: (works[n], raw.threads.texts[n]))
    counted = (thread[kernels] == main) & (step != OUTSIDE)
    begin = np.full(len(host), np.inf)
    np.minimum.at(begin, step[counted], start[kernels[counted]])
    if not np.isfinite(begin).all() or (np.diff(begin) <= 0).any():
        return host
    last = kernels[step == len(host) - 1]
    end = max(float((start + duration)[last].max()), begin[-1])
    return StepWindows(begin, np.append(begin[1:], end), host.phases)


def paths(raw: RawEvents, tree: Nested, kernels: Indices, launcher: Indices) -> tuple[Indices, Indices]:
    """Return the path of each kernel, and the operator that provides its shapes, or -1.

    This operator is the innermost one with shapes around the call that launched the kernel. The call itself is part of
    the path if it is an operator or launches a graph. For kernels of a graph the shapes are unknown.
    """
    name, shapes, kind = raw.array("name"), raw.array("shapes"), raw.array("kind")
    path, source = np.zeros(len(kernels), dtype=np.int64), np.full(len(kernels), -1, dtype=np.int64)
    graphs = {number for number, text in enumerate(raw.names.texts) if text.split("_v")[0] in GRAPH_LAUNCHES}
    for i, call in enumerate(launcher.tolist()):
        if call < 0:
            continue
        if kind[call] == OPERATOR or int(name[call]) in graphs:
            path[i] = tree.paths.below(int(tree.path[call]), int(name[call]))
        else:
            path[i] = tree.path[call]
        if int(name[call]) in graphs:
            continue
        above = call
        while above >= 0 and not shapes[above]:
            above = int(tree.parent[above])
        source[i] = above
    return path, source


@dataclass(frozen=True)
class Marked:
    """The annotations that open steps.

    Attributes:
        host: their events on the host, on one thread.
        device: their events on the device, on any stream.
        phase: phase of the step, by the number of the annotation's name.
        whole: events on that thread that mark a whole step, from scheduling to output, if the profile stepped the
            engine.
        names: the numbers of all these annotations' names.
    """

    host: Indices
    device: Indices
    phase: dict[int, Phase]
    whole: Indices
    names: list[int]


def read_torch(path: Path, trace: str, rank: int) -> tuple[pd.DataFrame, list[str]]:
    """Read one trace of torch's profiler.

    Args:
        path: the file, plain or gzip-compressed.
        trace: its name in the table.
        rank: rank of the worker.

    Returns:
        The events table, and warnings.

    Raises:
        UserError: the file is unreadable, is not such a trace, or has no step of vLLM.
    """
    raw = RawEvents()
    for event in trace_events(path):
        raw.add(event)
    raw.finish()
    if not len(raw):
        what = "holds no event" if not raw.events_seen else "is a trace, but none of torch's profiler"
        raise UserError(f"{path}: {what}", REMEDY)
    marked = _marked(path, raw)
    tree = nested(raw, marked.names)
    steps = _host_steps(raw, marked)
    kind = raw.array("kind")
    if (kind == KERNEL).any():
        rows, steps = _cuda(raw, tree, marked, steps)
    else:
        # Unlike a GPU, which may lag a step behind the host, a CPU has the whole step on the host.
        whole = within(steps, raw.array("start")[marked.whole], raw.array("duration")[marked.whole])
        steps = steps if whole is None else whole
        rows = _cpu(raw, tree, marked, steps)
    warnings = []
    if raw.unfinished:
        warnings.append(f"{trace}: {raw.unfinished} events have no end; they count as 0 us long")
    return table(raw, rows, steps, trace, rank), warnings


def _marked(path: Path, raw: RawEvents) -> Marked:
    kind, name, thread = raw.array("kind"), raw.array("name"), raw.array("thread")
    phase = {number: found for number, text in enumerate(raw.names.texts) if (found := phase_of(text))}
    opens = np.isin(name, np.array(list(phase), dtype=name.dtype))
    host = np.flatnonzero(opens & (kind != DEVICE_ANNOTATION) & (kind != KERNEL))
    if not len(host):
        raise UserError(
            f"{path}: holds no step of vLLM: no annotation like execute_context_0(0)_generation_32(32)",
            f"see that the profiler runs while the engine computes, then {REMEDY}",
        )
    # If several threads have annotations, all but one only wait for that one.
    main = raw.busiest_thread(host)
    wholes = [number for number, text in enumerate(raw.names.texts) if text == WHOLE_STEP]
    return Marked(
        host=host[thread[host] == main],
        device=np.flatnonzero(opens & (kind == DEVICE_ANNOTATION)),
        phase=phase,
        whole=np.flatnonzero(np.isin(name, wholes) & (kind != DEVICE_ANNOTATION) & (thread == main)),
        names=[*phase, *wholes],
    )


def _host_steps(raw: RawEvents, marked: Marked) -> StepWindows:
    start, duration, name = raw.array("start"), raw.array("duration"), raw.array("name")
    phases = [marked.phase[number] for number in name[marked.host].tolist()]
    steps = windows(start[marked.host], duration[marked.host], phases)
    # Sampling follows the annotation, so the last step lasts until the end of its thread's work.
    main = raw.array("thread") == raw.array("thread")[marked.host[0]]
    working = main & (raw.array("kind") == OPERATOR) & (start >= steps.begin[-1])
    return steps.lasting_until(float((start + duration)[working].max(initial=0.0)))


def _cpu(raw: RawEvents, tree: Nested, marked: Marked, steps: StepWindows) -> Rows:
    kind, thread, name = raw.array("kind"), raw.array("thread"), raw.array("name")
    shown = np.flatnonzero(((kind == OPERATOR) | (kind == ANNOTATION)) & ~np.isin(name, marked.names))
    computes = (kind == OPERATOR) & (thread == thread[marked.host[0]])
    return Rows(
        event=shown,
        where=np.where(computes[shown], DEVICE, HOST),
        step=steps.at(raw.array("start")[shown]),
        path=tree.path[shown],
        paths=tree.paths,
        self_us=tree.self_us[shown],
        source=shown,
    )


def _cuda(raw: RawEvents, tree: Nested, marked: Marked, host: StepWindows) -> tuple[Rows, StepWindows]:
    kind, name, start = raw.array("kind"), raw.array("name"), raw.array("start")
    kernels = np.flatnonzero(kind == KERNEL)
    launcher = launchers(raw, kernels)
    of_kernel = steps_of(raw, kernels, launcher, host, marked.device)
    steps = device_steps(raw, kernels, of_kernel, host)
    path, source = paths(raw, tree, kernels, launcher)
    on_host = np.flatnonzero(
        ((kind == OPERATOR) | (kind == ANNOTATION) | (kind == RUNTIME)) & ~np.isin(name, marked.names)
    )
    rows = Rows(
        event=np.concatenate([on_host, kernels]),
        where=np.repeat([HOST, DEVICE], [len(on_host), len(kernels)]),
        step=np.concatenate([host.at(start[on_host]), of_kernel]),
        path=np.concatenate([tree.path[on_host], path]),
        paths=tree.paths,
        self_us=np.concatenate([tree.self_us[on_host], raw.array("duration")[kernels]]),
        source=np.concatenate([on_host, source]),
    )
    return rows, steps
