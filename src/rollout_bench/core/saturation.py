"""Whether a server keeps up with the rate at which requests arrive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating[Any]]

CHANCE = 3.0
"""Standard deviations that may be chance: of the ten rates of a sweep none is to be too much for being unlucky."""

LONG = 0.4
"""Mean E2EL over the time in which requests arrive, from which on a pass is too short to see whether a server keeps
up."""


@dataclass(frozen=True)
class Arrivals:
    """One pass whose requests arrived at a rate, in seconds: when each of n was due, E2EL and end of the m <= n that
    succeeded, how long the pass took, and how many were cut as its time was over."""

    due_s: Array
    e2el_s: Array
    end_s: Array
    elapsed_s: float
    cut: int = 0


def kept_up(passes: Sequence[Arrivals]) -> tuple[float, float] | None:
    """Return the rate at which requests were due, per second, and the share of it at which answers came.

    With a the first and b the last time that one of n was due: offered is (n - 1) / (b - a), the mean over passes. A
    server that falls behind has more and more requests under way, so what is looked at is by how much their number grew
    in the second half of [a, b], when the first answers have long come, summed over passes. The share is
    1 - growth / requests due in those halves, but 1 where the growth may be chance: below `CHANCE` standard deviations
    of the difference of two such numbers, were requests independent. So latencies that differ from request to request,
    and answers that come in bursts since a batch ends together, are not taken for falling behind, and few requests show
    only what is far too much.
    Where the mean E2EL is over `LONG` of b - a in a pass, nothing of the kind can be seen. The share is then answers
    over the time of the passes, over what was offered: the least that it can be.
    None where fewer than four requests tell, or all were due at once.
    """
    if not passes or any(one.due_s.size < 4 or np.ptp(one.due_s) <= 0 for one in passes):
        return None
    offered = float(np.mean([(one.due_s.size - 1) / np.ptp(one.due_s) for one in passes]))
    if any(too_short(one) for one in passes):
        answers, elapsed_s = sum(one.end_s.size for one in passes), sum(one.elapsed_s for one in passes)
        return offered, min(1.0, answers / elapsed_s / offered)
    due, came, under_way = np.sum([_second_half(one) for one in passes], axis=0)
    growth = float(due - came)
    if growth > CHANCE * max(2 * float(under_way) + growth, 1.0) ** 0.5:
        return offered, float(came / due)
    # What failed never comes back, however much of the growth may be chance.
    # What was cut may have come.
    ended = sum(one.due_s.size - one.cut for one in passes)
    return offered, sum(one.end_s.size for one in passes) / max(1, ended)


def too_short(one: Arrivals) -> bool:
    """Return whether requests took so long, measured by the time in which they arrived, that nothing can be seen."""
    return bool(one.e2el_s.size and one.e2el_s.mean() > LONG * np.ptp(one.due_s))


def _second_half(one: Arrivals) -> tuple[float, float, float]:
    """Return requests due in it, answers that came in it, and how many that succeed were under way as it began."""
    middle, last = float(one.due_s.min() + one.due_s.max()) / 2, float(one.due_s.max())
    came = int(((one.end_s > middle) & (one.end_s <= last)).sum())
    due = max(int((one.due_s > middle).sum()) - 1, 1)  # the last one's answer can't have come as it is due
    never = (one.due_s.size - one.end_s.size - one.cut) / 2  # about: requests of the first half that failed
    return due, came, max(0.0, int((one.due_s <= middle).sum()) - int((one.end_s <= middle).sum()) - never)
