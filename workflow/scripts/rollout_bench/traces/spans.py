"""Spans of time on one thread: which encloses which, and how long each is the innermost one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

ROUNDING_US = 0.01
"""By how much a child may outlast its parent: profilers round begin and duration, each on its own."""


def nest(start: Floats, duration: Floats, tie: Indices | None = None) -> tuple[Floats, Indices]:
    """Self time and parent of every span of one thread, in any order.

    Each moment counts for one span: of those under way, the one that began last; of those that began together, the
    shortest. So self times are never negative and add up to the union of all spans, whether they nest or overlap.
    A span's parent is the innermost one that was under way when it began and lasted as long as it did.

    Args:
        start: when each span began, in microseconds.
        duration: how long it took, in microseconds, not negative.
        tie: what tells equal spans apart: the smaller one encloses the greater one.

    Returns:
        Self times in microseconds, and parents as indices into the spans, -1 without one.
    """
    count = len(start)
    end = start + duration
    order = np.lexsort((np.arange(count) if tie is None else tie, -end, start))
    own = [0.0] * count
    parent = [-1] * count
    begins, ends = start.tolist(), end.tolist()
    under_way: list[int] = []
    now = 0.0
    for i in order.tolist():
        begin = begins[i]
        now = _spend(under_way, ends, own, now, begin)
        reach = ends[i] - ROUNDING_US
        for candidate in reversed(under_way):
            if ends[candidate] >= reach:
                parent[i] = candidate
                break
        under_way.append(i)
    _spend(under_way, ends, own, now, float("inf"))
    return np.array(own, dtype=np.float64), np.array(parent, dtype=np.int64)


def _spend(under_way: list[int], ends: list[float], own: list[float], now: float, until: float) -> float:
    """Gives the time from `now` to `until` to the spans under way, dropping those that end; returns the new now."""
    while under_way:
        top = under_way[-1]
        end = ends[top]
        if end > until:
            if until > now:
                own[top] += until - now
            break
        if end > now:
            own[top] += end - now
            now = end
        under_way.pop()
    return until


def union(start: Floats, duration: Floats) -> float:
    """Microseconds in which at least one of the spans is under way."""
    if len(start) == 0:
        return 0.0
    order = np.argsort(start, kind="stable")
    begin, end = start[order], (start + duration)[order]
    before = np.concatenate(([begin[0]], np.maximum.accumulate(end)[:-1]))
    return float(np.maximum(end - np.maximum(begin, before), 0.0).sum())


def clip(start: Floats, duration: Floats, first: float, last: float) -> tuple[Floats, Floats]:
    """Start and duration of what lies between `first` and `last` of each span, in microseconds; 0 long if nothing."""
    begin = np.minimum(np.maximum(start, first), last)
    return begin, np.maximum(np.minimum(start + duration, last) - begin, 0.0)
