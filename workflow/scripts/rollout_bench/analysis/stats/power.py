"""How small a difference can be found, and how many pairs of launches a difference needs. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

FAR = 500.0
"""Critical values of t beyond this are far out."""

_MIDDLES = (np.arange(2000) + 0.5) / 2000
"""Middles of equally likely intervals."""

MAX_PAIRS = 100_000
"""Where the search for a number of pairs, or of launches of each side, ends."""


@lru_cache(maxsize=4096)
def noncentrality(pairs: int, level: float, power: float) -> float:
    """Difference of log means, in standard errors, that a paired t test of n = `pairs` >= 2 finds with `power`.

    Solves P(T' > t(1 - level / 2; n - 1)) = power for the parameter of the noncentral t distribution T' with
    n - 1 degrees of freedom (Johnson and Welch, Biometrika 31, 1940; Cohen, "Statistical power analysis", 1988).
    The chance to reject on the wrong side is left out: at a power of 0.7 and more it is below 1e-3.
    """
    return noncentrality_beyond(float(special.stdtrit(pairs - 1, 1 - level / 2)), pairs - 1, power)


@lru_cache(maxsize=4096)
def noncentrality_beyond(critical: float, freedom: int, power: float) -> float:
    """Return the lambda at which the noncentral t distribution of `freedom` >= 1 exceeds `critical` with `power`."""
    if critical > FAR:
        return _far_out(freedom, critical, power)
    return float(special.nctdtrinc(freedom, 1 - power, critical))


def _far_out(freedom: int, critical: float, power: float) -> float:
    """Return the same from T' = (Z + lambda) / sqrt(W / f), W chi-squared: the mean over equally likely values of W.

    For critical values so large, which two pairs have at strict levels, scipy's inverse does not end.
    """
    return least_above(critical * np.sqrt(special.gammaincinv(freedom / 2, _MIDDLES) / (freedom / 2)), power)


def least_above(bounds: NDArray[np.float64], power: float) -> float:
    """Return the least mean at which a normal value of deviation 1 exceeds `bounds` [...] with chance `power`.

    The chance is the mean over all bounds, each as likely as any other.
    """

    def lacking(mean: float) -> float:
        return power - float(special.ndtr(mean - bounds).mean())

    high = 4.0
    while lacking(high) > 0:
        high *= 2
    return float(optimize.brentq(lacking, 0, high, xtol=1e-6, rtol=1e-9))


def minimal_detectable_difference(log_sd: float, pairs: int, level: float, power: float) -> float:
    """Return the least difference that is found with `power`, as a fraction.

    0.042 stands for a ratio of 1.042 or 1 / 1.042.

    exp(lambda s / sqrt(n)) - 1, with lambda from `noncentrality`, s = `log_sd` the standard deviation of the
    log ratios, taken as known, and n = `pairs` >= 2. Infinite where it is too large for a number.
    """
    return as_fraction(noncentrality(pairs, level, power) * log_sd / math.sqrt(pairs))


def as_fraction(log_ratio: float) -> float:
    """exp(x) - 1: how far a ratio is from 1. Infinite where it is too large for a number."""
    return math.expm1(log_ratio) if log_ratio < 700 else math.inf


def fewest(enough: Callable[[int], bool], least: int = 2) -> int | None:
    """Return the least number from `least` up that is `enough`, as all larger ones then are.

    None where `MAX_PAIRS` is not.
    """
    low, high, step = least - 1, least, 1
    while high < MAX_PAIRS and not enough(high):
        low, high, step = high, min(high + step, MAX_PAIRS), 2 * step
    if high >= MAX_PAIRS and not (high == MAX_PAIRS and enough(high)):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
