"""Percentiles that a sample can claim, with intervals that assume no distribution. Pure functions on arrays."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Array = NDArray[np.float64]

CONFIDENCE = 0.99
"""Of the claim and of the interval."""


@dataclass(frozen=True)
class PercentileInterval:
    """A percentile of samples, in their unit, each field with the shape of the input but for its last axis.

    `low` <= `estimate` <= `high`; all three are values of the sample, none is interpolated.
    """

    estimate: Array
    low: Array
    high: Array


@lru_cache(maxsize=64)
def samples_needed(p: float, confidence: float = CONFIDENCE) -> int:
    """Return the least sample that can claim the percentile 100 `p`: 662 for 0.99 at a confidence of 0.99.

    The least n with P(B <= 1) <= 1 - confidence, B binomial with n trials of chance 1 - p: then the second largest
    of n independent values is no less than the true percentile with that confidence. This is the smallest sample
    of MLPerf's early stopping (MLCommons, "MLPerf Inference Rules", appendix on the early stopping criterion; LoadGen's
    early_stopping.cc, whose least are 64 for p90 and 662 for p99).

    Raises:
        ValueError: `p` is not at least 0.5 and below 1, or `confidence` is not above 0.5 and below 1.
    """
    _check(p, confidence)

    def enough(n: int) -> bool:
        return bool(special.bdtr(1, n, 1 - p) <= 1 - confidence)

    low, high = 1, 2  # one sample never is
    while not enough(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


@lru_cache(maxsize=4096)
def interval_ranks(n: int, p: float, confidence: float = CONFIDENCE) -> tuple[int, int]:
    """Return ranks (from 1) of the sorted values of a sample of `n` that enclose its percentile 100 `p`.

    With B binomial (n trials of chance p) and a = 1 - confidence: the greatest l with P(B < l) <= a / 2 and the least
    u with P(B >= u) <= a / 2. The true percentile lies in [x(l), x(u)] with a chance of at least the confidence,
    whatever the distribution, ties included (David and Nagaraja, Order Statistics, 3rd ed. 2003, section 7.1; Hahn
    and Meeker, Statistical Intervals, 1991, section 5.2).

    Raises:
        ValueError: as `samples_needed`, and where `n` is less than that.
    """
    if n < samples_needed(p, confidence):
        raise ValueError(f"{n} values cannot claim the percentile {100 * p:g}")
    tail = (1 - confidence) / 2
    below = special.bdtr(np.arange(n + 1), n, p)
    return int(np.searchsorted(below, tail)), int(np.searchsorted(below, 1 - tail)) + 1


def percentile_interval(
    values: ArrayLike, p: float, confidence: float = CONFIDENCE, independent: int | None = None
) -> PercentileInterval:
    """Return the percentile 100 `p` of samples [..., n] with the interval of `interval_ranks`, which is two-sided.

    The estimate is the value of rank ceil(n p), the least that n p of the values do not exceed. Where values come in
    groups, so that they tell as much as `independent` <= n values that do not (None: all n), the ranks are those
    of so many, as the same shares of the sample.

    Raises:
        ValueError: as `interval_ranks`, or a value is not finite.
    """
    array = np.asarray(values, dtype=float)
    if array.ndim < 1 or not np.isfinite(array).all():
        raise ValueError("a value is not finite" if array.ndim else "a sample needs an axis")
    n = array.shape[-1]
    worth = n if independent is None else independent
    low, high = interval_ranks(worth, p, confidence)
    low, high = (low - 1) * n // worth + 1, -(-high * n // worth)
    ordered = np.sort(array, axis=-1)
    return PercentileInterval(_estimate(ordered, p), ordered[..., low - 1], ordered[..., high - 1])


def spread_of_groups(values: ArrayLike, groups: ArrayLike, p: float, confidence: float = CONFIDENCE) -> float:
    """Return how far off the percentile 100 `p` of all groups that of `values` [n] may be, by how its `groups` differ.

    Student's t of the groups' own percentiles, t s / sqrt(count), in the unit of the values; 0 with fewer than two.
    `effective_samples` of a few groups often takes them for alike by chance, and this doesn't.
    """
    array, labels = np.asarray(values, dtype=float), np.asarray(groups)
    each = [_estimate(np.sort(array[labels == label]), p) for label in np.unique(labels)]
    if len(each) < 2:
        return 0.0
    return float(special.stdtrit(len(each) - 1, (1 + confidence) / 2) * np.std(each, ddof=1) / np.sqrt(len(each)))


def _estimate(ordered: Array, p: float) -> Array:
    # 100 x 0.55 is 55.00000000000001 in floating point.
    return np.asarray(ordered[..., int(np.ceil(round(ordered.shape[-1] * p, 9))) - 1])


def effective_samples(values: ArrayLike, groups: ArrayLike) -> float:
    """As how many independent values `values` [n] count that come in `groups` [n], labels of whatever kind.

    n / (1 + (m - 1) r), the design effect of clusters (Kish, Survey Sampling, 1965), with m = n / number of groups, r
    the intraclass correlation from a one-way analysis of variance, (B - W) / (B + (m - 1) W), B and W the mean squares
    between and within groups; r below 0 counts as 0. From n where groups do not matter to their number where the
    values of a group are all the same. n where there is one group, or one value in each.
    """
    array, labels = np.asarray(values, dtype=float), np.unique(np.asarray(groups), return_inverse=True)[1]
    n, count = array.size, int(labels.max()) + 1
    if count in (1, n):
        return float(n)
    sizes = np.bincount(labels)
    means = np.bincount(labels, weights=array) / sizes
    within = float(((array - means[labels]) ** 2).sum()) / (n - count)
    between = float((sizes * (means - array.mean()) ** 2).sum()) / (count - 1)
    each = n / count
    if between + (each - 1) * within <= 0:
        return float(count)
    correlation = max(0.0, (between - within) / (between + (each - 1) * within))
    return n / (1 + (each - 1) * correlation)


def _check(p: float, confidence: float) -> None:
    if not 0.5 <= p < 1:
        raise ValueError(f"{p} is no share from 0.5 to below 1")  # below the median the lower tail would decide
    if not 0.5 < confidence < 1:
        raise ValueError(f"{confidence} is no confidence above 0.5 and below 1")
