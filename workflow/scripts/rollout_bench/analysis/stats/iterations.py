"""How many iterations a launch should have, from how launches and iterations vary. Pure functions on arrays."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special


@dataclass(frozen=True)
class Variances:
    """Two levels of chance, in the input's unit squared: `within` a launch (T1^2), `between` launches (T2^2).

    T2^2 may be negative. `ratio_low` and `ratio_high` enclose T2^2 / T1^2 and are at least 0.
    """

    within: float
    between: float
    ratio_low: float
    ratio_high: float


def variances(values: ArrayLike, confidence: float = 0.95) -> Variances:
    """Splits the variance of `values` [m >= 2 launches][n >= 2 iterations] into that within and that between launches.

    T1^2 = S1^2, the mean of the launches' sample variances; T2^2 = S2^2 - S1^2 / n with S2^2 the sample variance of
    the launches' means; both are unbiased, so T2^2 can come out below zero (Kalibera and Jones, "Rigorous
    benchmarking in reasonable time", ISMM 2013, doi 10.1145/2464157.2464160). The interval of the ratio,
    for normal values: F = n S2^2 / S1^2 is (1 + n T2^2 / T1^2) times an F variable with m - 1 and m (n - 1) degrees
    of freedom, so it runs from (F / f(1 - a / 2) - 1) / n to (F / f(a / 2) - 1) / n, a = 1 - confidence (Searle,
    Casella and McCulloch, Variance Components, 1992).

    Raises:
        ValueError: fewer than two launches or iterations, a value that is not finite, or no variance within.
    """
    array = np.asarray(values, dtype=float)
    if array.ndim != 2 or min(array.shape) < 2:
        raise ValueError("it takes two launches of two iterations")
    if not np.isfinite(array).all():
        raise ValueError("a value is not finite")
    launches, iterations = array.shape
    within = float(array.var(axis=1, ddof=1).mean())
    means = float(array.mean(axis=1).var(ddof=1))
    if within <= 0:
        raise ValueError("iterations do not differ inside launches")
    found = iterations * means / within
    tail = (1 - confidence) / 2
    upper, lower = special.fdtri(launches - 1, launches * (iterations - 1), [1 - tail, tail])
    low, high = (max(0.0, float(found / f - 1) / iterations) for f in (upper, lower))
    return Variances(within, means - within / iterations, low, high)


def best_iterations(launch_s: float, iteration_s: float, ratio: float) -> float:
    """Iterations per launch that give the mean over launches its least variance in a given time; not rounded.

    n = sqrt(c_launch / c_iteration x T1^2 / T2^2) (Kalibera and Jones, as above), with c_launch = `launch_s` the
    seconds of a launch before its first counted iteration, c_iteration = `iteration_s` and `ratio` = T2^2 / T1^2.
    Infinite where `ratio` <= 0: then a further iteration is as good as a further launch, and cheaper.

    Raises:
        ValueError: a cost that is not positive and finite, or a ratio that is NaN.
    """
    if not all(math.isfinite(cost) and cost > 0 for cost in (launch_s, iteration_s)) or math.isnan(ratio):
        raise ValueError("costs must be positive, and the ratio a number")
    return math.inf if ratio <= 0 else math.sqrt(launch_s / iteration_s / ratio)


def relative_time(iterations: int, instead_of: int, launch_s: float, iteration_s: float, ratio: float) -> float:
    """Time for the same variance of the mean with `iterations` per launch, over that with `instead_of`, both >= 1.

    m launches of n iterations take m (c_launch + n c_iteration) seconds, and their mean has the variance
    (T2^2 + T1^2 / n) / m; so the time for a given variance is proportional to the product of the two brackets.
    A `ratio` = T2^2 / T1^2 below zero counts as zero.
    """

    def time(n: int) -> float:
        return (max(ratio, 0.0) + 1 / n) * (launch_s + n * iteration_s)

    return time(iterations) / time(instead_of)
