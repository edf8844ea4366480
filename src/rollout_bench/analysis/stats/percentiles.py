"""Percentiles for large enough samples, with intervals that assume no distribution. Pure functions on arrays."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Array = NDArray[np.float64]

CONFIDENCE = 0.99
"""Confidence of the sample size and of the interval."""


@dataclass(frozen=True)
class PercentileInterval:
    """A percentile of samples, in their unit; each field has the shape of the input without its last axis.

    `low` <= `estimate` <= `high`; all three are values of the sample, without interpolation.
    """

    estimate: Array
    low: Array
    high: Array


@lru_cache(maxsize=64)
def samples_needed(p: float, confidence: float = CONFIDENCE) -> int:
    """Return the smallest sample size for the percentile 100 `p`: 662 for 0.99 at a confidence of 0.99.

    This is the smallest n with P(B <= 1) <= 1 - confidence, B binomial with n trials of chance 1 - p. Then the second
    largest of n independent values is at least the true percentile with that confidence. MLPerf's early stopping has
    the same minimum (MLCommons, "MLPerf Inference Rules", appendix on the early stopping criterion; LoadGen's
    early_stopping.cc: 64 for p90 and 662 for p99).

    Raises:
        ValueError: `p` is not at least 0.5 and below 1, or `confidence` is not above 0.5 and below 1.
    """
    if not 0.5 <= p < 1:
        raise ValueError(f"{p} is no share from 0.5 to below 1")  # below the median the lower tail would decide
    if not 0.5 < confidence < 1:
        raise ValueError(f"{confidence} is no confidence above 0.5 and below 1")
    return next(n for n in itertools.count(2) if special.bdtr(1, n, 1 - p) <= 1 - confidence)


@lru_cache(maxsize=4096)
def interval_ranks(n: int, p: float, confidence: float = CONFIDENCE) -> tuple[int, int]:
    """Return ranks (from 1) of the sorted values of a sample of `n` that enclose its percentile 100 `p`.

    With B binomial (n trials of chance p) and a = 1 - confidence: the largest l with P(B < l) <= a / 2 and the smallest
    u with P(B >= u) <= a / 2. The true percentile lies in [x(l), x(u)] with a chance of at least the confidence,
    for any distribution, ties included (David and Nagaraja, Order Statistics, 3rd ed. 2003, section 7.1; Hahn
    and Meeker, Statistical Intervals, 1991, section 5.2).

    Raises:
        ValueError: as in `samples_needed`, and if `n` is below its result.
    """
    if n < samples_needed(p, confidence):
        raise ValueError(f"{n} values cannot prove the percentile {100 * p:g}")
    tail = (1 - confidence) / 2
    below = special.bdtr(np.arange(n + 1), n, p)
    return int(np.searchsorted(below, tail)), int(np.searchsorted(below, 1 - tail)) + 1


def percentile_interval(
    values: ArrayLike, p: float, confidence: float = CONFIDENCE, independent: int | None = None
) -> PercentileInterval:
    """Return the percentile 100 `p` of samples [..., n] with the two-sided interval of `interval_ranks`.

    The estimate is the value of rank ceil(n p): the smallest value that n p of the values do not exceed. Values in
    groups may carry only as much information as `independent` <= n independent values (None: all n). The ranks
    are then computed for that size and scaled to the sample.

    Raises:
        ValueError: as in `interval_ranks`, or a value is not finite.
    """
    array = np.asarray(values, dtype=float)
    if array.ndim < 1 or not np.isfinite(array).all():
        raise ValueError("a value is not finite" if array.ndim else "a sample needs an axis")
    n = array.shape[-1]
    worth = n if independent is None else independent
    low, high = interval_ranks(worth, p, confidence)
    low, high = (low - 1) * n // worth + 1, -(-high * n // worth)
    ordered = np.sort(array, axis=-1)
    return PercentileInterval(percentile_of(ordered, p), ordered[..., low - 1], ordered[..., high - 1])


def share_limits(share: float, trials: int, least: float, most: float) -> tuple[float, float]:
    """Return the lower limit of a chance with confidence `least`, and its upper limit with confidence `most`.

    `share` of `trials` independent trials succeeded. Both are one-sided and exact (C. J. Clopper and E. S. Pearson,
    Biometrika 26, 1934): the chances with which as many successes, or more, and as few, or fewer, are as rare as that.
    """
    hits = share * trials
    low = float(special.betaincinv(hits, trials - hits + 1, 1 - least)) if hits > 0 else 0.0
    high = float(special.betaincinv(hits + 1, trials - hits, most)) if hits < trials else 1.0
    return low, high


def spread_of_groups(values: ArrayLike, groups: ArrayLike, p: float, confidence: float = CONFIDENCE) -> float:
    """Return the uncertainty of the percentile 100 `p` of `values` [n] from the differences between their `groups` [n].

    This is Student's t of the groups' own percentiles, t s / sqrt(count), in the unit of the values; 0 with fewer than
    two groups. With few groups, `effective_samples` often finds no difference by chance; this function is safer.
    """
    array, labels = np.asarray(values, dtype=float), np.asarray(groups)
    each = [percentile_of(np.sort(array[labels == label]), p) for label in np.unique(labels)]
    if len(each) < 2:
        return 0.0
    return float(special.stdtrit(len(each) - 1, (1 + confidence) / 2) * np.std(each, ddof=1) / np.sqrt(len(each)))


def percentile_of(ordered: Array, p: float) -> Array:
    """Return the value of rank ceil(n p) of each sorted sample `ordered` [..., n]."""
    # 100 x 0.55 is 55.00000000000001 in floating point.
    return np.asarray(ordered[..., int(np.ceil(round(ordered.shape[-1] * p, 9))) - 1])


def correlation_time(series: Sequence[Array]) -> float:
    """Return how many neighbours in stationary `series` are worth one independent value, at least 1.

    It is 1 + 2 * the sum of their autocorrelations, pooled over the series, up to the first that is not positive and at
    most half of the longest (initial positive sequence: C. J. Geyer, Statistical Science 7, 1992, 473-483).
    """
    centred = [each - each.mean() for each in series if each.size > 1]
    total = sum(float(each @ each) for each in centred)
    time = 1.0
    for lag in range(1, max((each.size for each in centred), default=0) // 2):
        together = sum(float(each[:-lag] @ each[lag:]) for each in centred if each.size > lag)
        if total <= 0 or together <= 0:
            break
        time += 2 * together / total
    return time


def effective_samples(values: ArrayLike, groups: ArrayLike) -> float:
    """Return the number of independent values that `values` [n] in `groups` [n] (labels) are worth.

    This is n / (1 + (m - 1) r), the design effect of clusters (Kish, Survey Sampling, 1965), with m = n / number of
    groups. r is the intraclass correlation from a one-way analysis of variance, (B - W) / (B + (m - 1) W). B and W are
    the mean squares between and within groups; a negative r counts as 0. The result ranges from n, if the groups do
    not matter, to the number of groups, if all values of a group are equal. It is n for a single group, and for one
    value per group.
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
