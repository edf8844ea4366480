"""What launched each kernel of a CUDA trace, and in which step of the engine."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from rollout_bench.traces.events import OUTSIDE
from rollout_bench.traces.raw_events import OPERATOR, RUNTIME, RawEvents
from rollout_bench.traces.steps import Steps
from rollout_bench.traces.threads import Nested

Indices = npt.NDArray[np.int64]

GRAPH_LAUNCHES = frozenset({"cudaGraphLaunch", "cuGraphLaunch"})
"""Calls that launch many kernels at once, of which no operator is known."""


def launchers(raw: RawEvents, kernels: Indices) -> Indices:
    """The host's event that launched each kernel: the call of the runtime, or else its operator; -1 without either."""
    kind = raw.array("kind")
    calls = np.flatnonzero(kind == RUNTIME)
    operators = np.flatnonzero(kind == OPERATOR)
    by_call = _matched(raw.array("correlation")[calls], calls, raw.array("correlation")[kernels])
    by_operator = _matched(raw.array("external")[operators], operators, raw.array("external")[kernels])
    return np.where(by_call >= 0, by_call, by_operator)


def _matched(keys: Indices, events: Indices, wanted: Indices) -> Indices:
    """The event of each wanted key, -1 without one; no key is -1."""
    if not len(keys):
        return np.full(len(wanted), -1, dtype=np.int64)
    order = np.argsort(keys, kind="stable")
    keys, events = keys[order], events[order]
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where((keys[at] == wanted) & (wanted >= 0), events[at], -1)


def steps_of(raw: RawEvents, kernels: Indices, launcher: Indices, host: Steps, device: Indices) -> Indices:
    """The step of each kernel: the one that launched it, else the one marked on the device at that time, else by time.

    Args:
        host: the steps as the host's annotations have them.
        device: annotations of steps on the device.
    """
    start = raw.array("start")
    known = launcher >= 0
    step = np.where(known, host.at(start[np.maximum(launcher, 0)]), host.at(start[kernels]))
    marks = _device_marks(raw, device, host)
    if marks is not None:
        step = np.where(known, step, marks.at(start[kernels]))
    return step.astype(np.int64)


def _device_marks(raw: RawEvents, device: Indices, host: Steps) -> Steps | None:
    """The device's annotations of steps as windows, if there is one for each of the host's on one stream."""
    if not len(device):
        return None
    thread, start, duration = raw.array("thread"), raw.array("start"), raw.array("duration")
    for stream in np.unique(thread[device]):
        marks = device[thread[device] == stream]
        if len(marks) == len(host):
            order = marks[np.argsort(start[marks], kind="stable")]
            return replace(host, begin=start[order], end=(start + duration)[order])
    return None


def device_steps(raw: RawEvents, kernels: Indices, step: Indices, host: Steps) -> Steps:
    """The steps as the device sees them: each begins with its first kernel on the stream that works most.

    The host runs ahead of the device, so its annotation says when a step was launched, not when it was computed. Both
    follow each other at the same pace. Where a step has no kernel there, the host's windows are kept.
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
    return Steps(begin, np.append(begin[1:], end), host.phases)


def paths(raw: RawEvents, tree: Nested, kernels: Indices, launcher: Indices) -> tuple[Indices, Indices]:
    """Path of each kernel, and the operator whose shapes it has: the innermost that launched it and has some, or -1.

    The call that launched it stands in the path only if it is a graph's: then the shapes are nobody's.
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
