"""Where the time of each step goes, and what no rule knows."""

from __future__ import annotations

import pandas as pd

from rollout_bench.traces.events import DEVICE, OUTSIDE, STEP
from rollout_bench.traces.rules import CATEGORIES
from rollout_bench.traces.spans import Floats, clip, nest

HOST_GAP = "host_gap"

KEYS = ["trace", "phase", "rank", "step"]


def step_times(events: pd.DataFrame) -> pd.DataFrame:
    """Microseconds of each step by category and role: the rows of a step add up to its duration.

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
    """The device's rows of one step, which begins at `first`, with the microseconds that count for each."""
    start: Floats = rows["start_us"].to_numpy()
    duration: Floats = rows["duration_us"].to_numpy()
    last = first + length
    inside = bool((start >= first).all() and (start + duration <= last).all())
    if inside and rows["stream"].nunique() == 1:
        return rows.assign(us=rows["self_us"])
    begin, counted = clip(start, duration, first, last)
    return rows.assign(us=nest(begin, counted)[0])


def unknown(events: pd.DataFrame) -> pd.DataFrame:
    """Names of the device's rows in steps that no rule knows, the longest first.

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
