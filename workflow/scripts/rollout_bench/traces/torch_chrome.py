"""Traces of torch's profiler, CPU and CUDA, as an events table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from rollout_bench.errors import UserError
from rollout_bench.records.profile import Phase
from rollout_bench.traces import launches
from rollout_bench.traces.events import DEVICE, HOST
from rollout_bench.traces.json_stream import REMEDY, trace_events
from rollout_bench.traces.raw_events import (
    ANNOTATION,
    DEVICE_ANNOTATION,
    KERNEL,
    OPERATOR,
    RUNTIME,
    RawEvents,
)
from rollout_bench.traces.steps import WHOLE_STEP, Steps, phase_of, windows, within
from rollout_bench.traces.table import Rows, table
from rollout_bench.traces.threads import Nested, nested

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Marked:
    """The annotations that open steps.

    Attributes:
        host: their events on the host, on one thread.
        device: those on the device, of any stream.
        phase: what the step computes, by the number of the annotation's name.
        whole: events on that thread that mark a whole step, from scheduling to handing back, where it was stepped.
        names: the numbers of all these annotations' names.
    """

    host: Indices
    device: Indices
    phase: dict[int, Phase]
    whole: Indices
    names: list[int]


def read_torch(path: Path, trace: str, rank: int) -> tuple[pd.DataFrame, list[str]]:
    """Reads one trace of torch's profiler.

    Args:
        path: the file, plain or gzip-compressed.
        trace: its name in the table.
        rank: worker that it is of.

    Returns:
        The events table, and sentences on what is doubtful about it.

    Raises:
        UserError: the file can't be read or is no such trace, or holds no step of vLLM.
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
        # A device has a clock of its own, and may be a step behind the host; here the step is what the host took.
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
    # Where several threads have some, all but one only wait for it.
    main = raw.busiest_thread(host)
    wholes = [number for number, text in enumerate(raw.names.texts) if text == WHOLE_STEP]
    return Marked(
        host=host[thread[host] == main],
        device=np.flatnonzero(opens & (kind == DEVICE_ANNOTATION)),
        phase=phase,
        whole=np.flatnonzero(np.isin(name, wholes) & (kind != DEVICE_ANNOTATION) & (thread == main)),
        names=[*phase, *wholes],
    )


def _host_steps(raw: RawEvents, marked: Marked) -> Steps:
    start, duration, name = raw.array("start"), raw.array("duration"), raw.array("name")
    phases = [marked.phase[number] for number in name[marked.host].tolist()]
    steps = windows(start[marked.host], duration[marked.host], phases)
    # Sampling follows the annotation, so the last step lasts as long as its thread works.
    main = raw.array("thread") == raw.array("thread")[marked.host[0]]
    working = main & (raw.array("kind") == OPERATOR) & (start >= steps.begin[-1])
    return steps.lasting_until(float((start + duration)[working].max(initial=0.0)))


def _cpu(raw: RawEvents, tree: Nested, marked: Marked, steps: Steps) -> Rows:
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


def _cuda(raw: RawEvents, tree: Nested, marked: Marked, host: Steps) -> tuple[Rows, Steps]:
    kind, name, start = raw.array("kind"), raw.array("name"), raw.array("start")
    kernels = np.flatnonzero(kind == KERNEL)
    launcher = launches.launchers(raw, kernels)
    of_kernel = launches.steps_of(raw, kernels, launcher, host, marked.device)
    steps = launches.device_steps(raw, kernels, of_kernel, host)
    path, source = launches.paths(raw, tree, kernels, launcher)
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
