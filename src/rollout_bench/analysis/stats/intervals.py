"""Means, ratios of paired and unpaired sides with intervals and p values, and many comparisons at once.

Pure functions on arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Array = NDArray[np.float64]


def mean(values: ArrayLike) -> float:
    """Arithmetic mean of `values` [n >= 1], in their unit."""
    return float(np.mean(np.asarray(values, dtype=float)))


def standard_deviation(values: ArrayLike) -> float:
    """Sample standard deviation (n - 1) of `values` [n >= 2], in their unit."""
    return float(np.std(np.asarray(values, dtype=float), ddof=1))


def ecdf(values: ArrayLike) -> tuple[Array, Array]:
    """Return the distinct `values` [n >= 1] in order, and the share of all that each is not exceeded by.

    The empirical cdf.
    """
    distinct, counts = np.unique(np.asarray(values, dtype=float), return_counts=True)
    return distinct, np.cumsum(counts) / counts.sum()


def cv_percent(values: ArrayLike) -> float | None:
    """Coefficient of variation of `values` [n]: 100 s / mean, with s the sample standard deviation (n - 1).

    None for fewer than two values or a mean of zero. In percent of the mean.
    """
    array = np.asarray(values, dtype=float)
    if array.size < 2 or not array.mean():
        return None
    return float(100 * array.std(ddof=1) / array.mean())


def pooled_cv_percent(groups: Sequence[ArrayLike]) -> float | None:
    """Typical coefficient of variation inside `groups` [g][n_i], in percent.

    Root mean square of the groups' own coefficients, each group with two or more values counting
    alike (pooled relative standard deviation, ISO 5725-2). Differences between groups do not enter.
    None where no group has two values.
    """
    inside = [cv for cv in map(cv_percent, groups) if cv is not None]
    return float(np.sqrt(np.mean(np.square(inside)))) if inside else None


NO_SPREAD = 1e-9
"""A standard deviation of log ratios below this is none: rounding leaves 1e-16, a real engine 1e-3 and more."""


@dataclass(frozen=True)
class RatioInterval:
    """What launches tell of a ratio, each field with the shape of the input but for its last axis; no units.

    `ratio` lies between `low` and `high`. `p_value` is two-sided, for the hypothesis that the ratio is 1. `freedom`
    are the degrees of freedom of both.
    """

    ratio: Array
    low: Array
    high: Array
    p_value: Array
    freedom: Array | int


def ratio_interval(log_ratios: ArrayLike, confidence: float) -> RatioInterval:
    """Geometric mean of n >= 2 ratios, its t interval at `confidence`, and the p value of "it is 1".

    With d_i = ln(a_i / b_i), i = 1..n along the last axis, m their mean and s their standard deviation:
    interval exp(m -+ t(1 - (1 - confidence) / 2; n - 1) s / sqrt(n)), p = 2 P(T(n-1) > |m| sqrt(n) / s).
    This is Student's paired t interval (1908) of the log ratios, which takes them as independent and
    about normal. Each i is one pair of launches: the launch is the highest level at which chance enters,
    so it is the unit of replication and iterations inside it are averaged first (Kalibera and Jones,
    "Rigorous benchmarking in reasonable time", ISMM 2013, doi 10.1145/2464157.2464160). They, too, give
    an interval for the ratio of two means, by Fieller's theorem (1954), for sides that are measured apart;
    launches that take turns drift together, and the log ratio of a pair takes that out. The geometric mean
    makes a / b and b / a each other's inverse (Fleming and Wallace, CACM 29(3), 1986).

    Raises:
        ValueError: fewer than two pairs, a value that is not finite, or ratios that do not differ at all
            (standard deviation below `NO_SPREAD`), of which nothing can be inferred.
    """
    middle, deviation, n = _moments(log_ratios)
    return _t_interval(middle, deviation / np.sqrt(n), n - 1, confidence)


def welch_interval(logs: ArrayLike, baseline_logs: ArrayLike, confidence: float) -> RatioInterval:
    """Ratio of the geometric means of two sides, its t interval at `confidence`, and the p value of "it is 1".

    With x_i = ln(a_i), i = 1..n, and y_j = ln(b_j), j = 1..k, along the last axes, m the difference of their means,
    s and r their standard deviations, e = sqrt(s^2 / n + r^2 / k) and f from `degrees_of_freedom`:
    interval exp(m -+ t(1 - (1 - confidence) / 2; f) e), p = 2 P(T(f) > |m| / e).
    This is Welch's t interval of the logarithms ("The generalization of Student's problem when several different
    population variances are involved", Biometrika 34, 1947), which takes them as independent and about normal, and
    does not ask that both sides scatter alike. Each value is one launch, as in `ratio_interval`; unlike there
    nothing took turns, so what drifts between the sides is not taken out: it is part of the ratio.

    Raises:
        ValueError: as `ratio_interval`, of either side.
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
    distribution of estimates of variance components", Biometrics Bulletin 2, 1946), and at most 2 (min(n, k) - 1),
    which for n = k is no limit. Without it a side of two launches whose spread comes out small by luck passes for
    well known beside a side of many: sides that scatter alike and do not differ, 2 and 12 launches, are then found to
    differ in 11 % of cases at a level of 5 %, and with it in 3 % (`tests/unit/analysis/test_unpaired.py` simulates it).
    """
    u, v = np.square(sd) / launches, np.square(baseline_sd) / baseline_launches
    share = u / (u + v)  # of the variance; unlike the squares above it can not underflow
    own = 1 / (share**2 / (launches - 1) + (1 - share) ** 2 / (baseline_launches - 1))
    freedom: Array = np.minimum(own, 2 * (min(launches, baseline_launches) - 1))
    return freedom


def t_interval(values: Sequence[float] | np.ndarray, confidence: float) -> tuple[float, float] | None:
    """Student's interval of the mean of `values` [n], in their unit; None for fewer than two."""
    array = np.asarray(values, dtype=float)
    if array.size < 2:
        return None
    half = float(special.stdtrit(array.size - 1, 0.5 + confidence / 2) * array.std(ddof=1) / np.sqrt(array.size))
    return float(array.mean()) - half, float(array.mean()) + half
