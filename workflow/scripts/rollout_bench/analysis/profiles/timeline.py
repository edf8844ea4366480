"""The time line of one step: which category the device is busy with, moment by moment."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from rollout_bench.analysis.profiles.profiled import CATEGORIES, HOST_GAP, OTHER, Profiled
from rollout_bench.records.profile import Phase

CELLS = 1200
"""Of one time line: more than a figure can show."""

_FINE = 16
"""Moments looked at in each cell."""


@dataclass(frozen=True)
class TimeLine:
    """One step of `duration_us`; `segments` are (begin, duration, category) in microseconds, in order, without gaps."""

    duration_us: float
    segments: tuple[tuple[float, float, str], ...]


def time_line(profiled: Profiled, phase: Phase, rank: int = 0) -> TimeLine | None:
    """That of the traced step of `phase` whose duration is the median one; None where there is none."""
    events = profiled.events
    own = events[(events["phase"] == phase) & (events["rank"] == rank)]
    steps = own[(own["where"] == "step") & (own["duration_us"] > 0)].sort_values("duration_us", kind="stable")
    if steps.empty:
        return None
    step = steps.iloc[(len(steps) - 1) // 2]
    device = own[(own["where"] == "device") & (own["trace"] == step["trace"]) & (own["step"] == step["step"])]
    return painted(device, float(step["start_us"]), float(step["duration_us"]))


def painted(device: pd.DataFrame, start_us: float, duration_us: float) -> TimeLine:
    """The time line of device rows [n] with start_us, duration_us and category, from `start_us` on.

    An operator covers those that enclose it, a later one an earlier one; each of `CELLS` equal cells shows what covers
    most of it.
    """
    moments = CELLS * _FINE
    gap = CATEGORIES.index(HOST_GAP)
    codes = {category: place for place, category in enumerate(CATEGORIES)}
    line = np.full(moments, gap, dtype=np.int8)
    ordered = device.assign(_length=-device["duration_us"]).sort_values(["start_us", "_length"], kind="stable")
    begins = (ordered["start_us"].to_numpy(dtype=float) - start_us) / duration_us * moments
    ends = begins + ordered["duration_us"].to_numpy(dtype=float) / duration_us * moments
    places = [codes.get(category, codes[OTHER]) for category in ordered["category"]]
    firsts = np.clip(np.rint(begins), 0, moments).astype(int)
    lasts = np.clip(np.rint(ends), 0, moments).astype(int)
    for first, last, code in zip(firsts.tolist(), lasts.tolist(), places, strict=True):
        line[first:last] = code
    counts = np.stack([(line == code).reshape(CELLS, _FINE).sum(axis=1) for code in range(len(CATEGORIES))])
    cells = counts.argmax(axis=0)
    edges = [0, *(np.flatnonzero(np.diff(cells)) + 1).tolist(), CELLS]
    width = duration_us / CELLS
    return TimeLine(
        duration_us,
        tuple((first * width, (last - first) * width, CATEGORIES[cells[first]]) for first, last in pairwise(edges)),
    )
