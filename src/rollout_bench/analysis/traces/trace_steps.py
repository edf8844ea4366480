"""Steps of the engine in a trace: when each begins, what it computes, and where its time goes."""

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
"""vLLM's annotation: requests (tokens) whose prompts are computed, requests (tokens) that decode. A longer form, which
a setting of vLLM's asks for, counts more in the brackets and has the number of tokens in front."""

_OLDER_STEP = re.compile(r"execute_new_(\d+)_cached_(\d+)")
"""As workers derived from earlier versions of vLLM's write it: new requests, and those that go on."""

WHOLE_STEP = "rollout_bench_step"
"""How a profile that steps the engine marks each step; vLLM's annotation inside it covers the model's part alone."""

_NUMBERED_STEP = re.compile(r"ProfilerStep#\d+")
"""The profiler's own mark, where it has a schedule: it does not say what was computed."""


@dataclass(frozen=True)
class StepWindows:
    """Steps in order, as windows of time.

    Attributes:
        begin: when each begins, in microseconds, rising.
        end: when each ends: when the next one begins, but for the last.
        phases: what each computes.
    """

    begin: Floats
    end: Floats
    phases: list[Phase]

    def __len__(self) -> int:
        return len(self.phases)

    def at(self, times: Floats) -> Indices:
        """Return number of the step in which each of the times lies, `OUTSIDE` without one."""
        number = np.searchsorted(self.begin, times, side="right") - 1
        inside = (number >= 0) & (times < self.end[np.maximum(number, 0)]) if len(self) else np.zeros(len(times), bool)
        return np.where(inside, number, OUTSIDE).astype(np.int64)

    def lasting_until(self, end: float) -> StepWindows:
        """Return the same with the last one ending no earlier than `end`."""
        if not len(self):
            return self
        return replace(self, end=np.append(self.end[:-1], max(self.end[-1], end)))


def phase_of(name: str) -> Phase | None:
    """Return what the step computes that an annotation of this name opens, None if it opens none."""
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

    Each lasts until the next one begins, the last as long as itself.

    Args:
        begin: when each annotation begins, in microseconds.
        duration: how long it lasts.
        phases: what each step computes.
    """
    order = np.lexsort((np.array(phases), duration, begin))
    begin, last = begin[order], (begin + duration)[order]
    return StepWindows(begin, np.append(begin[1:], last[-1:]), [phases[i] for i in order.tolist()])


def within(steps: StepWindows, begin: Floats, duration: Floats) -> StepWindows | None:
    """Return `steps` as long as the marks around them, None unless each has one of its own.

    What lies between two marks, as the next pass being handed over, then belongs to no step.

    Args:
        steps: steps as vLLM's annotations tell of them.
        begin: when each mark of a whole step begins, in microseconds.
        duration: how long it lasts.
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
    """Return steps from the number that each kernel carries; None if one lacks it, or one number has several.

    Args:
        start: when each kernel begins, in microseconds.
        duration: how long it takes.
        numbers: its step's number, as text.
        phase: what all of them compute.
    """
    if not len(numbers) or any(not str(number).isdigit() for number in numbers.tolist()):
        return None
    values = numbers.astype(np.int64)
    begin = np.sort(np.array([start[values == value].min() for value in np.unique(values)]))
    return StepWindows(begin, np.append(begin[1:], (start + duration).max()), [phase] * len(begin))


def by_attention(
    start: Floats, duration: Floats, attention: npt.NDArray[np.bool_], layers: int, phase: Phase
) -> StepWindows | None:
    """Return steps by counting.

    Each has one attention kernel a layer. None if their number is no multiple of the layers.

    Between the last one of a step and the first of the next, the step ends where the device waits longest.

    Args:
        start: when each kernel begins, in microseconds.
        duration: how long it takes.
        attention: whether it is an attention kernel.
        layers: layers of the model.
        phase: what all of the steps compute.
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
    """Return microseconds of each step by category and role: the rows of a step add up to its duration.

    Each moment counts for one row of the device: its self time on a single stream. Where several streams work at
    once, for the row that began last. What lies outside the step's window counts for none. The rest is host_gap: the
    step's duration less the union of the device's rows.

    Args:
        events: a table that `categorise` made.

    Returns:
        One row for each step, category and role that takes time, with the columns trace, phase, rank, step, category,
        role, us.
    """
    steps = events[events["where"] == STEP].set_index(["trace", "rank", "step"])
    busy = events[(events["where"] == DEVICE) & (events["step"] != OUTSIDE)]
    windows = dict(zip(steps.index, zip(steps["start_us"], steps["duration_us"], strict=True), strict=True))
    parts = [_busy(group, *windows[key]) for key, group in busy.groupby(["trace", "rank", "step"], observed=True)]
    counted = pd.concat(parts) if parts else busy.assign(us=0.0)
    by_role = counted.groupby(["trace", "rank", "step", "category", "role"], observed=True)["us"].sum()
    rows = pd.DataFrame(by_role).reset_index()
    rows[["category", "role"]] = rows[["category", "role"]].astype("str")
    covered = rows.groupby(["trace", "rank", "step"], observed=True)["us"].sum()
    gap = (steps["duration_us"] - covered.reindex(steps.index).fillna(0.0)).clip(lower=0.0)
    idle = gap.rename("us").reset_index().assign(category=HOST_GAP, role="")
    both = pd.concat([rows, idle], ignore_index=True)
    whole = both.groupby(["trace", "rank", "step", "category", "role"], observed=True)["us"].sum()
    both = pd.DataFrame(whole).reset_index()
    both["phase"] = (
        steps["phase"].astype("str").reindex(pd.MultiIndex.from_frame(both[["trace", "rank", "step"]])).array
    )
    both["trace"] = both["trace"].astype("str")
    both["category"] = pd.Categorical(both["category"], categories=list(CATEGORIES))
    both = both[both["us"] > 0].sort_values([*KEYS[:1], "rank", "step", "category", "role"], ignore_index=True)
    return both[[*KEYS, "category", "role", "us"]]


def _busy(rows: pd.DataFrame, first: float, length: float) -> pd.DataFrame:
    """Return the device's rows of one step, which begins at `first`, with the microseconds that count for each."""
    start: Floats = rows["start_us"].to_numpy()
    duration: Floats = rows["duration_us"].to_numpy()
    last = first + length
    inside = bool((start >= first).all() and (start + duration <= last).all())
    if inside and rows["stream"].nunique() == 1:
        return rows.assign(us=rows["self_us"])
    begin, counted = clip(start, duration, first, last)
    return rows.assign(us=nest(begin, counted)[0])


def unknown(events: pd.DataFrame) -> pd.DataFrame:
    """Return names of the device's rows in steps that no rule knows, the longest first.

    Args:
        events: a table that `categorise` made.

    Returns:
        One row for each name and phase, with the columns name, phase, calls, us and share: of the device's self time in
        all steps of that phase.
    """
    device = events[(events["where"] == DEVICE) & (events["step"] != OUTSIDE)]
    whole = device.groupby("phase", observed=True)["self_us"].sum()
    other = device[device["category"] == "other"]
    rows = other.groupby(["name", "phase"], observed=True)["self_us"].agg(calls="count", us="sum").reset_index()
    rows[["name", "phase"]] = rows[["name", "phase"]].astype("str")
    rows["share"] = rows["us"] / rows["phase"].map(whole.rename(index=str)).astype("float64")
    return rows.sort_values(["us", "name"], ascending=[False, True], ignore_index=True)
