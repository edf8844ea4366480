"""Self times and enclosing spans of spans that nest or overlap."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

ROUNDING_US = 0.01
"""Microseconds by which a child may end after its parent: profilers round begin and duration separately."""


def nest(start: Floats, duration: Floats) -> tuple[Floats, Indices]:
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
    own, parent = [0.0] * len(start), [-1] * len(start)
    begins, ends = start.tolist(), (start + duration).tolist()
    running: list[int] = []
    now = 0.0
    for i in np.lexsort((-(start + duration), start)).tolist():
        now = _spend(running, ends, own, now, begins[i])
        parent[i] = next((above for above in reversed(running) if ends[above] >= ends[i] - ROUNDING_US), -1)
        running.append(i)
    _spend(running, ends, own, now, float("inf"))
    return np.array(own, dtype=np.float64), np.array(parent, dtype=np.int64)


def _spend(running: list[int], ends: list[float], own: list[float], now: float, until: float) -> float:
    """Add the time from `now` to `until` to the running spans, removing those that end; return the new now."""
    while running:
        last = running[-1]
        own[last] += max(0.0, min(ends[last], until) - now)
        if ends[last] > until:
            break
        now = max(now, ends[last])
        running.pop()
    return until
