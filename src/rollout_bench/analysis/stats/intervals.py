"""Means, ratios of paired and unpaired sides with intervals and p values, and many comparisons at once.

Pure functions on arrays.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Array = NDArray[np.float64]


def mean(values: ArrayLike) -> float:
    """Return the arithmetic mean of `values` [n >= 1], in their unit."""
    return float(np.mean(np.asarray(values, dtype=float)))


def standard_deviation(values: ArrayLike) -> float:
    """Return the sample standard deviation (n - 1) of `values` [n >= 2], in their unit."""
    return float(np.std(np.asarray(values, dtype=float), ddof=1))


def cv_percent(values: ArrayLike) -> float | None:
    """Return the coefficient of variation of `values` [n]: 100 s / mean, with s the sample standard deviation (n - 1).

    Return None for fewer than two values or a mean of zero.
    """
    array = np.asarray(values, dtype=float)
    if array.size < 2 or not array.mean():
        return None
    return float(100 * array.std(ddof=1) / array.mean())


def pooled_cv_percent(groups: Sequence[ArrayLike]) -> float | None:
    """Return the typical coefficient of variation within `groups` [g][n_i], in percent.

    This is the root mean square of the groups' coefficients (pooled relative standard deviation, ISO 5725-2). Each
    group with two or more values counts equally. Differences between groups are not included. Return None if no group
    has two values.
    """
    inside = [cv for cv in map(cv_percent, groups) if cv is not None]
    return float(np.sqrt(np.mean(np.square(inside)))) if inside else None


NO_SPREAD = 1e-9
"""A standard deviation of log ratios below this counts as zero: rounding leaves 1e-16, a real engine 1e-3 and more."""


@dataclass(frozen=True)
class RatioInterval:
    """Estimate of a ratio from launches; each field has the shape of the input without its last axis, and no unit.

    `ratio` lies between `low` and `high`. `p_value` is two-sided, for the hypothesis that the ratio is 1. `freedom` are
    the degrees of freedom of both.
    """

    ratio: Array
    low: Array
    high: Array
    p_value: Array
    freedom: Array | int


def ratio_interval(log_ratios: ArrayLike, confidence: float) -> RatioInterval:
    """Return the geometric mean of n >= 2 ratios, its t interval at `confidence`, and the p value of "it is 1".

    With d_i = ln(a_i / b_i), i = 1..n along the last axis, m their mean and s their standard deviation:
    interval exp(m -+ t(1 - (1 - confidence) / 2; n - 1) s / sqrt(n)), p = 2 P(T(n-1) > |m| sqrt(n) / s).

    This is Student's paired t interval (1908) of the log ratios, which are assumed independent and roughly normal.
    Each i is one pair of launches. The launch is the highest level with random variation, so it is the unit of
    replication, and its iterations are averaged first (Kalibera and Jones, "Rigorous benchmarking in reasonable time",
    ISMM 2013, doi 10.1145/2464157.2464160). They also give an interval for the ratio of two means that are measured
    separately, by Fieller's theorem (1954). Interleaved launches drift together, and the log ratio of a pair cancels
    this drift. With the geometric mean, a / b and b / a are inverse to each other (Fleming and Wallace, CACM 29(3),
    1986).

    Raises:
        ValueError: fewer than two pairs, a value that is not finite, or ratios that are all equal (standard deviation
            below `NO_SPREAD`), which allow no inference.
    """
    middle, deviation, n = _moments(log_ratios)
    return _t_interval(middle, deviation / np.sqrt(n), n - 1, confidence)


def welch_interval(logs: ArrayLike, baseline_logs: ArrayLike, confidence: float) -> RatioInterval:
    """Return the ratio of the geometric means of two sides, its t interval at `confidence`, and the p value for 1.

    With x_i = ln(a_i), i = 1..n, and y_j = ln(b_j), j = 1..k, along the last axes, m the difference of their means,
    s and r their standard deviations, e = sqrt(s^2 / n + r^2 / k) and f from `degrees_of_freedom`:
    interval exp(m -+ t(1 - (1 - confidence) / 2; f) e), p = 2 P(T(f) > |m| / e).

    This is Welch's t interval of the logarithms ("The generalization of Student's problem when several different
    population variances are involved", Biometrika 34, 1947). It assumes that they are independent and roughly normal,
    but not that both sides scatter equally. Each value is one launch, as in `ratio_interval`. The sides were not
    interleaved, so drift between them is part of the ratio.

    Raises:
        ValueError: as in `ratio_interval`, for either side.
    """
    (own, s, n), (other, r, k) = _moments(logs), _moments(baseline_logs)
    return _t_interval(own - other, np.sqrt(s**2 / n + r**2 / k), degrees_of_freedom(s, n, r, k), confidence)


def _moments(logs: ArrayLike) -> tuple[Array, Array, int]:
    values = np.asarray(logs, dtype=float)
    if values.ndim < 1 or values.shape[-1] < 2:
        raise ValueError("an interval needs two launches of a side, or two pairs")
    if not np.isfinite(values).all():
        raise ValueError("a logarithm is not finite")
    deviation = np.asarray(values.std(axis=-1, ddof=1))
    if (deviation < NO_SPREAD).any():
        raise ValueError("the launches of a side, or the ratios, do not differ at all")
    return np.asarray(values.mean(axis=-1)), deviation, values.shape[-1]


def _t_interval(middle: Array, error: Array, freedom: Array | int, confidence: float) -> RatioInterval:
    half = special.stdtrit(freedom, 0.5 + confidence / 2) * error
    with np.errstate(over="ignore"):
        low, high = np.exp(middle - half), np.exp(middle + half)
    p_value = 2 * special.stdtr(freedom, -np.abs(middle) / error)
    return RatioInterval(ratio=np.exp(middle), low=low, high=high, p_value=p_value, freedom=freedom)


def degrees_of_freedom(sd: ArrayLike, launches: int, baseline_sd: ArrayLike, baseline_launches: int) -> Array:
    """Return degrees of freedom of a difference of means, from standard deviations [...] > 0 of n and k launches >= 2.

    With u = s^2 / n and v = r^2 / k: (u + v)^2 / (u^2 / (n - 1) + v^2 / (k - 1)) (Satterthwaite, "An approximate
    distribution of estimates of variance components", Biometrics Bulletin 2, 1946). The result is at most
    2 (min(n, k) - 1), which is no restriction for n = k. Without this limit, a side of two launches with a small
    spread by luck counts as well known beside a larger side. Two sides with equal scatter and no difference, 2 and 12
    launches, then differ significantly in 11 % of cases at a level of 5 %. With the limit it is 3 %
    (`tests/unit/analysis/test_unpaired.py` simulates it).
    """
    u, v = np.square(sd) / launches, np.square(baseline_sd) / baseline_launches
    share = u / (u + v)  # of the variance; unlike the squares above, it cannot underflow
    welch = 1 / (share**2 / (launches - 1) + (1 - share) ** 2 / (baseline_launches - 1))
    return np.asarray(np.minimum(welch, 2 * (min(launches, baseline_launches) - 1)))


def t_interval(values: Sequence[float] | np.ndarray, confidence: float) -> tuple[float, float] | None:
    """Return Student's interval of the mean of `values` [n], in their unit; None for fewer than two."""
    array = np.asarray(values, dtype=float)
    if array.size < 2:
        return None
    half = float(special.stdtrit(array.size - 1, 0.5 + confidence / 2) * array.std(ddof=1) / np.sqrt(array.size))
    return float(array.mean()) - half, float(array.mean()) + half
