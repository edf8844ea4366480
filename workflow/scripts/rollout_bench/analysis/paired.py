"""The ratio of two sides that were measured in pairs: estimate, interval and p value. Pure functions on arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Array = NDArray[np.float64]

NO_SPREAD = 1e-9
"""A standard deviation of log ratios below this is none: rounding leaves 1e-16, a real engine 1e-3 and more."""


@dataclass(frozen=True)
class RatioInterval:
    """What pairs tell of a ratio, each field with the shape of the input but for its last axis; no units.

    `ratio` lies between `low` and `high`. `p_value` is two-sided, for the hypothesis that the ratio is 1.
    `log_sd` is the sample standard deviation of the log ratios (n - 1).
    """

    ratio: Array
    low: Array
    high: Array
    p_value: Array
    log_sd: Array


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
    d = np.asarray(log_ratios, dtype=float)
    if d.ndim < 1 or d.shape[-1] < 2:
        raise ValueError("an interval needs two pairs")
    if not np.isfinite(d).all():
        raise ValueError("a log ratio is not finite")
    n = d.shape[-1]
    middle, deviation = d.mean(axis=-1), d.std(axis=-1, ddof=1)
    if (deviation < NO_SPREAD).any():
        raise ValueError("the ratios do not differ at all")
    error = deviation / np.sqrt(n)
    half = special.stdtrit(n - 1, 0.5 + confidence / 2) * error
    with np.errstate(over="ignore"):
        low, high = np.exp(middle - half), np.exp(middle + half)
    return RatioInterval(
        ratio=np.exp(middle),
        low=low,
        high=high,
        p_value=2 * special.stdtr(n - 1, -np.abs(middle) / error),
        log_sd=deviation,
    )
