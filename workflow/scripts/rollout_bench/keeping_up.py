"""Whether a server keeps up with the rate at which requests arrive: one rule for searches and for summaries."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating[Any]]

KEPT_UP = 0.95
"""A server that delivers at least this share of the rate that is offered keeps up."""

LONG = 0.5
"""Mean E2EL over the time in which requests arrive, from which on a pass is too short to see whether a server keeps
up."""


def kept_up(due_s: Array, e2el_s: Array, end_s: Array, elapsed_s: float) -> tuple[float, float] | None:
    """The rate at which requests [n] were due, per second, and the share of it at which answers [m <= n] came.

    With a the first and b the last time that one was due, L the mean E2EL: offered is (n - 1) / (b - a), and the share
    is the number of answers in (a + L, b] over the number of requests due in (a, b - L]: what came while requests still
    arrived, over what was due so much earlier. A server that keeps up answers them all, however long it takes, and
    however uneven arrivals are; one that does not lets the number under way grow. Requests over the time of the pass
    would fall short of the rate at every server, since a pass ends as much later than its last request is due as that
    takes; and answers alone come in a burst where all that is in a batch ends together.
    Where L is over `LONG` of b - a nothing of the kind can be seen. The share is then m over the time of the pass,
    over what was offered: the least that it can be.
    None where fewer than four requests tell, or all were due at once.
    """
    if due_s.size < 4 or due_s.max() <= due_s.min():
        return None
    first, last = float(due_s.min()), float(due_s.max())
    offered = (due_s.size - 1) / (last - first)
    if not end_s.size:
        return offered, 0.0
    latency = float(e2el_s.mean())
    due_early = int((due_s[due_s > first] <= last - latency).sum())
    if latency > LONG * (last - first) or not due_early:
        return offered, end_s.size / elapsed_s / offered
    return offered, int(((end_s > first + latency) & (end_s <= last)).sum()) / due_early
