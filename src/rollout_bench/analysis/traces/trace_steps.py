"""Steps of the engine in a trace: their begins, phases and times by category."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from rollout_bench.analysis.traces.categories import CATEGORIES
from rollout_bench.analysis.traces.events import DEVICE, OUTSIDE, STEP
from rollout_bench.analysis.traces.threads import Floats, clip, nest
from rollout_bench.contracts.inside import Phase

Indices = npt.NDArray[np.int64]

_STEP = re.compile(r"execute_(?:\d+_)?context_(\d+)\([^)]*\)_generation_(\d+)\([^)]*\)")
"""vLLM's annotation: requests (tokens) whose prompts are computed, and requests (tokens) that decode. A longer form
has more counts in the brackets and starts with the number of tokens.
"""

_OLDER_STEP = re.compile(r"execute_new_(\d+)_cached_(\d+)")
"""Annotation of workers derived from earlier vLLM versions: new requests, and continued requests."""

WHOLE_STEP = "rollout_bench_step"
"""Mark of each step in a profile that steps the engine; vLLM's annotation within it covers only the model's part."""

_NUMBERED_STEP = re.compile(r"ProfilerStep#\d+")
"""The profiler's own mark if it has a schedule; it does not contain the phase."""


@dataclass(frozen=True)
class StepWindows:
    """Steps in order, as windows of time.

    Attributes:
        begin: begin of each step, in microseconds, rising.
        end: end of each step: the begin of the next one, except for the last.
        phases: phase of each step.
    """

    begin: Floats
    end: Floats
    phases: list[Phase]

    def __len__(self) -> int:
        return len(self.phases)

    def at(self, times: Floats) -> Indices:
        """Return the number of the step at each of the times, `OUTSIDE` without one."""
        number = np.searchsorted(self.begin, times, side="right") - 1
        inside = (number >= 0) & (times < self.end[np.maximum(number, 0)]) if len(self) else np.zeros(len(times), bool)
        return np.where(inside, number, OUTSIDE).astype(np.int64)

    def lasting_until(self, end: float) -> StepWindows:
        """Return the steps with the last one extended to at least `end`."""
        if not len(self):
            return self
        return replace(self, end=np.append(self.end[:-1], max(self.end[-1], end)))


def phase_of(name: str) -> Phase | None:
    """Return the phase of the step that an annotation of this name opens, None if it opens none."""
    found = _STEP.fullmatch(name) or _OLDER_STEP.fullmatch(name)
    if found is None:
        return None
    prompts, decoding = int(found[1]), int(found[2])
    if not prompts and not decoding:
        return None  # nothing was scheduled
    if not prompts:
        return "decode"
    return "mixed" if decoding else "prefill"


def is_numbered_step(name: str) -> bool:
    """Return whether an annotation of this name is the profiler's own mark of a step."""
    return _NUMBERED_STEP.fullmatch(name) is not None


def windows(begin: Floats, duration: Floats, phases: list[Phase]) -> StepWindows:
    """Return steps from their annotations, in any order.

    Each step lasts until the next one begins; the last step has its annotation's duration.

    Args:
        begin: begin of each annotation, in microseconds.
        duration: its duration.
        phases: phase of each step.
    """
    order = np.lexsort((np.array(phases), duration, begin))
    begin, last = begin[order], (begin + duration)[order]
    return StepWindows(begin, np.append(begin[1:], last[-1:]), [phases[i] for i in order.tolist()])


def within(steps: StepWindows, begin: Floats, duration: Floats) -> StepWindows | None:
    """Return `steps` with the windows of the marks around them; None unless each step has a separate mark.

    Time between two marks, such as handing over the next iteration, then belongs to no step.

    Args:
        steps: steps from vLLM's annotations.
        begin: begin of each whole step's mark, in microseconds.
        duration: its duration.
    """
    order = np.argsort(begin, kind="stable")
    begin, end = begin[order], (begin + duration)[order]
    number = np.searchsorted(begin, steps.begin, side="right") - 1
    if not len(begin) or (number < 0).any() or len(np.unique(number)) < len(steps):
        return None
    if (steps.begin >= end[number]).any():
        return None
    return StepWindows(begin[number], end[number], steps.phases)


def by_number(start: Floats, duration: Floats, numbers: npt.NDArray[np.object_], phase: Phase) -> StepWindows | None:
    """Return steps from the step number of each kernel; None if a kernel has none.

    Args:
        start: begin of each kernel, in microseconds.
        duration: its duration.
        numbers: its step's number, as text.
        phase: phase of all steps.
    """
    if not len(numbers) or any(not str(number).isdigit() for number in numbers.tolist()):
        return None
    values = numbers.astype(np.int64)
    begin = np.sort(np.array([start[values == value].min() for value in np.unique(values)]))
    return StepWindows(begin, np.append(begin[1:], (start + duration).max()), [phase] * len(begin))


def by_attention(
    start: Floats, duration: Floats, attention: npt.NDArray[np.bool_], layers: int, phase: Phase
) -> StepWindows | None:
    """Return steps by counting attention kernels, one per layer; None unless their number is a multiple of the layers.

    A step ends at the device's longest wait between its last attention kernel and the first of the next step.

    Args:
        start: begin of each kernel, in microseconds.
        duration: its duration.
        attention: whether it is an attention kernel.
        layers: layers of the model.
        phase: phase of all steps.
    """
    order = np.argsort(start, kind="stable")
    start, end = start[order], np.maximum.accumulate((start + duration)[order])
    anchors = np.flatnonzero(attention[order])
    if not layers or not len(anchors) or len(anchors) % layers:
        return None
    begin = [float(start[0])]
    for last, first in zip(anchors[layers - 1 : -1 : layers], anchors[layers::layers], strict=True):
        waits = start[last + 1 : first + 1] - end[last:first]
        begin.append(float(start[last + 1 + int(np.argmax(waits))]))
    return StepWindows(np.array(begin), np.append(begin[1:], end[-1]), [phase] * len(begin))


HOST_GAP = "host_gap"

KEYS = ["trace", "phase", "rank", "step"]


def step_times(events: pd.DataFrame) -> pd.DataFrame:
    """Return microseconds of each step by category: the rows of a step add up to its duration.

    Each moment counts for one row of the device. On a single stream this is the row's self time; with simultaneous
    streams the row that began last counts. Time outside the step's window is left out. host_gap is the rest: the
    step's duration minus the union of the device's rows.

    Args:
        events: a table from `categorise`.

    Returns:
        One row for each step and category with any time, with the columns trace, phase, rank, step, category, us.
    """
    steps = events[events["where"] == STEP].set_index(["trace", "rank", "step"])
    busy = events[(events["where"] == DEVICE) & (events["step"] != OUTSIDE)]
    windows = dict(zip(steps.index, zip(steps["start_us"], steps["duration_us"], strict=True), strict=True))
    parts = [_busy(group, *windows[key]) for key, group in busy.groupby(["trace", "rank", "step"], observed=True)]
    counted = pd.concat(parts) if parts else busy.assign(us=0.0)
    sums = counted.groupby(["trace", "rank", "step", "category"], observed=True)["us"].sum()
    rows = pd.DataFrame(sums).reset_index()
    rows["category"] = rows["category"].astype("str")
    covered = rows.groupby(["trace", "rank", "step"], observed=True)["us"].sum()
    gap = (steps["duration_us"] - covered.reindex(steps.index).fillna(0.0)).clip(lower=0.0)
    idle = gap.rename("us").reset_index().assign(category=HOST_GAP)
    both = pd.concat([rows, idle], ignore_index=True)
    whole = both.groupby(["trace", "rank", "step", "category"], observed=True)["us"].sum()
    both = pd.DataFrame(whole).reset_index()
    both["phase"] = (
        steps["phase"].astype("str").reindex(pd.MultiIndex.from_frame(both[["trace", "rank", "step"]])).array
    )
    both["trace"] = both["trace"].astype("str")
    both["category"] = pd.Categorical(both["category"], categories=list(CATEGORIES))
    both = both[both["us"] > 0].sort_values([*KEYS[:1], "rank", "step", "category"], ignore_index=True)
    return both[[*KEYS, "category", "us"]]


def _busy(rows: pd.DataFrame, first: float, length: float) -> pd.DataFrame:
    """Return the device's rows of one step, which begins at `first`, with the microseconds that count for each row."""
    start: Floats = rows["start_us"].to_numpy()
    duration: Floats = rows["duration_us"].to_numpy()
    last = first + length
    inside = bool((start >= first).all() and (start + duration <= last).all())
    if inside and rows["stream"].nunique() == 1:
        return rows.assign(us=rows["self_us"])
    begin, counted = clip(start, duration, first, last)
    return rows.assign(us=nest(begin, counted)[0])
