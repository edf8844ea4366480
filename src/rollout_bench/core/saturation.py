"""Checks whether a server keeps up with the arrival rate of requests."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating[Any]]

CHANCE = 3.0
"""Growth up to this many standard deviations may be chance. The limit suits a sweep of ten rates: none of them should
fail by chance."""

LONG = 0.4
"""Maximum ratio of mean E2EL to the time in which requests arrive. Above it, a pass is too short for this check."""


@dataclass(frozen=True)
class Arrivals:
    """One pass whose requests arrived at a rate.

    Args:
        due_s: the time at which each request was due, in seconds [n].
        e2el_s: E2EL of the m <= n requests that succeeded, in seconds [m].
        end_s: end of the requests that succeeded, in seconds [m].
        elapsed_s: duration of the pass, in seconds.
        cut: number of requests that were cut off when the time of the pass was over.
    """

    due_s: Array
    e2el_s: Array
    end_s: Array
    elapsed_s: float
    cut: int = 0


def kept_up(passes: Sequence[Arrivals]) -> tuple[float, float] | None:
    """Return the offered rate (requests per second), and the share of it that the server answered.

    Let a be the first and b the last due time of a pass with n requests. The offered rate is (n - 1) / (b - a), the
    mean over passes.
    A server that falls behind has a growing number of running requests. The growth is measured in the second half of
    [a, b], after the first answers have arrived, and summed over passes.
    The share is 1 - growth / (requests due in these halves).
    A growth below `CHANCE` standard deviations of a difference between two counts of independent requests may be
    chance. The share is then the fraction of requests that succeeded, without requests that were cut off. So varying
    latencies and bursts of answers do not count as falling behind. With few requests only a large growth counts.
    If the mean E2EL of a pass exceeds `LONG` * (b - a), the growth can't be measured. The share is then a lower bound:
    answers per second of the passes, divided by the offered rate.
    The result is None if a pass has fewer than four requests, or if all its requests were due simultaneously.
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
    # Failed requests count as unanswered even if the growth may be chance.
    # Requests that were cut off do not count: they might have succeeded.
    ended = sum(one.due_s.size - one.cut for one in passes)
    return offered, sum(one.end_s.size for one in passes) / max(1, ended)


def too_short(one: Arrivals) -> bool:
    """Return whether requests took too long, relative to the time in which they arrived, for this check."""
    return bool(one.e2el_s.size and one.e2el_s.mean() > LONG * np.ptp(one.due_s))


def _second_half(one: Arrivals) -> tuple[float, float, float]:
    """Return counts for the second half of a pass: requests due, answers, and requests running at its start.

    The last count is an estimate and excludes requests that fail later.
    """
    middle, last = float(one.due_s.min() + one.due_s.max()) / 2, float(one.due_s.max())
    came = int(((one.end_s > middle) & (one.end_s <= last)).sum())
    due = max(int((one.due_s > middle).sum()) - 1, 1)  # the last request can't be answered when it is due
    never = (one.due_s.size - one.end_s.size - one.cut) / 2  # estimate of the failed requests of the first half
    return due, came, max(0.0, int((one.due_s <= middle).sum()) - int((one.end_s <= middle).sum()) - never)
