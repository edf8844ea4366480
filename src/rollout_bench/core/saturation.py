"""Checks whether a server keeps up with the arrival rate of requests."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

Array = npt.NDArray[np.floating[Any]]

KEEPS, BEHIND = 0.95, 0.995
"""One-sided confidence with which a server is said to keep up, and to fall behind. The latter suits a sweep of ten
rates: none of them should fall behind by chance."""

LONG = 0.4
"""Maximum ratio of the mean latency of the first quarter of the arrivals to the time of all arrivals. Above it, a pass
is too short for this check, unless latencies grow so much that the server is `FAR` behind."""

FAR = 0.8
"""Share of the rate that a server answers at most if it falls behind even in a pass that is too short: latencies also
grow while the first batch fills, but not on and on."""

BATCHES = 4
"""Parts of the second half of a pass whose mean latencies are compared if there are fewer than `ALONE` passes."""

STEPS, IN_STEP = 10, 6
"""Parts of the second half of a pass, at most, from one of which to the next latencies grow if the server falls behind;
and the answers of each that fewer parts are made for, since answers come in bunches."""

ALONE = 6
"""Minimum number of passes that are compared with each other."""

FEWEST = 8
"""Minimum number of answers in the second half of the arrivals of a pass."""


@dataclass(frozen=True)
class Arrivals:
    """One pass whose requests arrived at a rate.

    Args:
        due_s: the time at which each request was due, in seconds [n].
        answered_due_s: the same for the m <= n requests that succeeded [m], in the order of `due_s`.
        end_s: end of the requests that succeeded, in seconds [m].
        elapsed_s: duration of the pass, in seconds.
        cut: number of requests that were cut off when the time of the pass was over.
        first_s: first token of the requests that succeeded, in seconds [m]; None if a time is unknown.
    """

    due_s: Array
    answered_due_s: Array
    end_s: Array
    elapsed_s: float
    cut: int = 0
    first_s: Array | None = None

    @property
    def latency_s(self) -> Array:
        """Time from when each successful request was due until its end [m]."""
        return self.end_s - self.answered_due_s


@dataclass(frozen=True)
class KeptUp:
    """Whether a server kept up with requests that arrived at a rate.

    Attributes:
        offered_per_s: requests due per second, mean over passes.
        share: the share of this rate that the server answered; 1 if a lower one may be chance and no request failed.
        is_sure: whether it is shown that the server keeps up, or that it falls behind.
    """

    offered_per_s: float
    share: float
    is_sure: bool


def kept_up(passes: Sequence[Arrivals], enough: float) -> KeptUp | None:
    """Return whether the server answered the share `enough` of the rate, or more, in `passes` of one load.

    Let a be the first and b the last due time of a pass with n requests. The offered rate is (n - 1) / (b - a).
    Where requests come faster than a server answers, each waits longer than the one before: the latency grows by
    offered / answered - 1 seconds for each second of the arrivals, so the share is 1 / (1 + growth). The growth is
    the slope of latencies over due times in the second half of [a, b], after the first answers have arrived. With
    `ALONE` passes or more its interval is Student's of their slopes, since passes begin with an empty server; with
    fewer its upper end is that of one regression on `BATCHES` means a pass, whose latencies resemble each other less
    than neighbours do (batch means: A. M. Law, Simulation Modeling and Analysis, 5th ed. 2015, section 9.5.3), and its
    lower end is that of the steps by which latencies grow.
    Failed requests count as unanswered, requests that were cut off do not count.
    If requests were cut off, the latest latencies are unknown, and the growth of the number of running requests counts.
    If early latencies of a pass exceed `LONG` * (b - a), the growth may be that of the first batch. If it is too large
    for that, the server falls behind; likewise if so many requests wait for their first token, in a queue that grew.
    Otherwise the share is a lower bound: answers per second of the passes, divided by the offered rate.
    The result is None if a pass has fewer than four requests, or if all its requests were due simultaneously.
    """
    if not passes or any(one.due_s.size < 4 or np.ptp(one.due_s) <= 0 for one in passes):
        return None
    offered = float(np.mean([(one.due_s.size - 1) / np.ptp(one.due_s) for one in passes]))
    answers = sum(one.end_s.size for one in passes)
    served = answers / max(1, sum(one.due_s.size - one.cut for one in passes))
    cut = any(one.cut for one in passes)
    share, low, high = _by_running(passes) if cut else _by_latency(passes)
    if any(too_short(one) for one in passes) and high > FAR:
        least = min(1.0, answers / sum(one.elapsed_s for one in passes) / offered)
        waiting = [replace(one, end_s=one.first_s) for one in passes if one.first_s is not None]
        if len(waiting) == len(passes) and (most := _by_running(waiting)[2]) <= FAR:
            return KeptUp(offered, min(least, most), True)
        return KeptUp(offered, least, least >= enough or served < enough)
    kept_share = served if high >= 1 else min(served, share)
    # what failed is no chance
    is_sure = served < enough or served * low >= enough or (high < 1 and share < enough)
    return KeptUp(offered, kept_share, is_sure)


def too_short(one: Arrivals) -> bool:
    """Return whether requests took too long, relative to the time in which they arrived, for this check."""
    early = one.answered_due_s <= one.due_s.min() + np.ptp(one.due_s) / 4
    return bool(early.any() and one.latency_s[early].mean() > LONG * np.ptp(one.due_s))


def _by_latency(passes: Sequence[Arrivals]) -> tuple[float, float, float]:
    """Return the answered share, its lower limit at `KEEPS` and its upper limit at `BEHIND`, from growing latencies."""
    halves = []
    for one in passes:
        late = one.answered_due_s > (one.due_s.min() + one.due_s.max()) / 2
        halves.append((one.answered_due_s[late], one.latency_s[late]))
    if any(due.size < FEWEST or np.ptp(due) <= 0 for due, _ in halves):
        return 1.0, 0.0, math.inf
    if len(halves) >= ALONE:
        slopes = np.array([_slope(*half)[0] for half in halves])
        slope, freedom = float(slopes.mean()), slopes.size - 1
        error = float(slopes.std(ddof=1)) / math.sqrt(slopes.size)
    else:
        means = [
            np.array([[part.mean() for part in np.array_split(values, BATCHES)] for values in half]) for half in halves
        ]
        slope, squares = _slope(*np.concatenate([each - each.mean(axis=1, keepdims=True) for each in means], axis=1))
        freedom = len(means) * (BATCHES - 1) - 1
        spread = sum(float(((each[0] - each[0].mean()) ** 2).sum()) for each in means)
        error = math.sqrt(squares / freedom / spread)
    most = slope + float(special.stdtrit(freedom, KEEPS)) * error
    least = _least_growth(halves) if len(halves) < ALONE else slope - float(special.stdtrit(freedom, BEHIND)) * error
    return 1 / (1 + max(slope, 0.0)), 1 / (1 + max(most, 0.0)), 1 / (1 + max(least, 0.0))


def _least_growth(halves: Sequence[tuple[Array, Array]]) -> float:
    """Return the lower limit at `BEHIND` of the growth of latencies, in seconds per second of due times.

    In a queue without an end each latency is the one before plus a step, so the steps are independent, and the
    latencies are not: at a rate beside the limit they wander without growing on and on. Steps are differences between
    mean latencies of `STEPS` parts of a half; the variance of their sum is 3/2 of what independent ones would have
    (means of a random walk: H. Working, Econometrica 28, 1960).

    Args:
        halves: due times and latencies in the second half of each pass.
    """
    steps, elapsed_s = list[Array](), 0.0
    for due, latency in halves:
        parts = max(BATCHES, min(STEPS, due.size // IN_STEP))
        means = [np.array([part.mean() for part in np.array_split(values, parts)]) for values in (due, latency)]
        steps.append(np.diff(means[1]))
        elapsed_s += float(np.ptp(means[0]))
    each = np.concatenate(steps)
    error = math.sqrt(1.5 / each.size) * float(each.std(ddof=1))
    least = float(each.mean()) - float(special.stdtrit(each.size - 1, BEHIND)) * error
    return least * each.size / elapsed_s


def _slope(x: Array, y: Array) -> tuple[float, float]:
    """Return the slope of the regression of `y` on `x` [n], and the sum of squares of its residuals."""
    x, y = x - x.mean(), y - y.mean()
    slope = float(x @ y / (x @ x))
    return slope, float(((y - slope * x) ** 2).sum())


def _by_running(passes: Sequence[Arrivals]) -> tuple[float, float, float]:
    """Return the same from the growth of the number of running requests, summed over the second halves of `passes`.

    Its variance is that of a difference between two counts of independent requests.
    """
    due, came, under_way = np.sum([_second_half(one) for one in passes], axis=0)
    growth, error = float(due - came), math.sqrt(max(2 * float(under_way) + max(float(due - came), 0.0), 1.0))
    ends = [growth + float(special.ndtri(KEEPS)) * error, growth - float(special.ndtri(BEHIND)) * error]
    low, high = (1 - max(end, 0.0) / float(due) for end in ends)
    return 1 - max(growth, 0.0) / float(due), low, high


def _second_half(one: Arrivals) -> tuple[float, float, float]:
    """Return counts for the second half of a pass: requests due, answers, and requests running at its start.

    The last count is an estimate and excludes requests that fail later.
    """
    middle, last = float(one.due_s.min() + one.due_s.max()) / 2, float(one.due_s.max())
    came = int(((one.end_s > middle) & (one.end_s <= last)).sum())
    due = max(int((one.due_s > middle).sum()) - 1, 1)  # the last request can't be answered when it is due
    never = (one.due_s.size - one.end_s.size - one.cut) / 2  # estimate of the failed requests of the first half
    return due, came, max(0.0, int((one.due_s <= middle).sum()) - int((one.end_s <= middle).sum()) - never)
