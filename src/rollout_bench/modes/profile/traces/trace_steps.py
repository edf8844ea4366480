"""Steps of the engine in a trace: their begins, phases and times by category; self times of spans."""

import re
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from rollout_bench.contracts.phases import Phase
from rollout_bench.modes.profile.traces.events import DEVICE, OUTSIDE, STEP

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

_STEP = re.compile(r"execute_(?:\d+_)?context_(\d+)\([^)]*\)_generation_(\d+)\([^)]*\)")
"""vLLM's annotation: requests (tokens) whose prompts are computed, and requests (tokens) that decode. A longer form
has more counts in the brackets and starts with the number of tokens.
"""

_OLDER_STEP = re.compile(r"execute_new_(\d+)_cached_(\d+)")
"""Annotation of workers derived from earlier vLLM versions: new requests, and continued requests."""


def phase_of(name: str) -> Phase | None:
    """Return the phase of the step that an annotation of this name opens, None if it opens none."""
    match = _STEP.fullmatch(name) or _OLDER_STEP.fullmatch(name)
    prompts, decoding = (int(match[1]), int(match[2])) if match else (0, 0)
    if not prompts:
        return "decode" if decoding else None
    return "mixed" if decoding else "prefill"


def step_windows(begin: Floats, phases: Any, last: float) -> pd.DataFrame:
    """Return steps that begin at the rising times `begin`, each until the next one, and the last until `last`.

    Times are in microseconds. The columns are begin, end and phase.
    """
    return pd.DataFrame({"begin": begin, "end": np.append(begin[1:], max(last, begin[-1])), "phase": phases})


def step_at(steps: pd.DataFrame, times: Floats) -> Indices:
    """Return the number of the step at each of the times, `OUTSIDE` without one."""
    number = np.searchsorted(steps["begin"].to_numpy(), times, side="right") - 1
    inside = (number >= 0) & (times < steps["end"].to_numpy()[number])
    return np.where(inside, number, OUTSIDE)


KEYS = ["trace", "rank", "step"]


def step_times(events: pd.DataFrame) -> pd.DataFrame:
    """Return microseconds of each step by category: the rows of a step add up to its duration.

    Each moment counts for one row of the device; with simultaneous streams, for the row that began last. Time outside
    the step's window is left out. host_gap is the rest: the step's duration minus the union of the device's rows.

    Args:
        events: a table from `categorise`.

    Returns:
        One row for each step and category with any time, with the columns trace, rank, step, category, us, phase.
    """
    steps = events[events["where"] == STEP].assign(end=lambda step: step["start_us"] + step["duration_us"])
    device = events[(events["where"] == DEVICE) & (events["step"] != OUTSIDE)]
    device = device.merge(steps[[*KEYS, "start_us", "end"]], on=KEYS, suffixes=("", "_step"))
    begin = device["start_us"].clip(device["start_us_step"], device["end"])
    counted = (device["start_us"] + device["duration_us"]).clip(begin, device["end"]) - begin
    device["us"] = 0.0
    for rows in device.groupby(["trace", "rank"]).groups.values():
        device.loc[rows, "us"] = self_times(begin[rows].to_numpy(), counted[rows].to_numpy())[0]
    gap = steps.set_index(KEYS)["duration_us"].sub(device.groupby(KEYS)["us"].sum(), fill_value=0.0).clip(lower=0.0)
    parts = pd.concat([device[[*KEYS, "category", "us"]], gap.rename("us").reset_index().assign(category="host_gap")])
    times: pd.DataFrame = (
        parts.groupby([*KEYS, "category"], as_index=False)["us"].sum().merge(steps[[*KEYS, "phase"]], on=KEYS)
    )
    return times.query("us > 0").reset_index(drop=True)


ROUNDING_US = 0.01
"""Microseconds by which a child may end after its parent: profilers round begin and duration separately."""


def self_times(start: Floats, duration: Floats) -> tuple[Floats, Indices]:
    """Return self time and parent of every span of one thread, in any order.

    Each moment counts for one span: the last one to begin among the running spans; of several, the shortest. So self
    times are never negative and add up to the union of all spans, whether they nest or overlap. A span's parent is the
    innermost span that was running when it began and that did not end before it. Of equal spans, the first encloses
    the others.

    Args:
        start: begin of each span, in microseconds.
        duration: duration of each span, in microseconds, not negative.

    Returns:
        Self times in microseconds, and parents as indices into the spans, -1 without one.
    """
    self_time, parent = [0.0] * len(start), [-1] * len(start)
    begins, ends = start.tolist(), (start + duration).tolist()
    running: list[int] = []
    now = 0.0
    for i in np.lexsort((-(start + duration), start)).tolist():
        now = _spend(running, ends, self_time, now, begins[i])
        parent[i] = next((above for above in reversed(running) if ends[above] >= ends[i] - ROUNDING_US), -1)
        running.append(i)
    _spend(running, ends, self_time, now, float("inf"))
    return np.array(self_time, dtype=np.float64), np.array(parent, dtype=np.int64)


def _spend(running: list[int], ends: list[float], self_time: list[float], now: float, until: float) -> float:
    """Add the time from `now` to `until` to the running spans, removing those that end; return the new now."""
    while running:
        last = running[-1]
        self_time[last] += max(0.0, min(ends[last], until) - now)
        if ends[last] > until:
            break
        now = max(now, ends[last])
        running.pop()
    return until
