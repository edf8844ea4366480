"""Statistics as pure functions on arrays. Nothing here knows of records, tables or files."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def mean(values: ArrayLike) -> float:
    """Arithmetic mean of `values` [n >= 1], in their unit."""
    return float(np.mean(np.asarray(values, dtype=float)))


def standard_deviation(values: ArrayLike) -> float:
    """Sample standard deviation (n - 1) of `values` [n >= 2], in their unit."""
    return float(np.std(np.asarray(values, dtype=float), ddof=1))


def ecdf(values: ArrayLike) -> tuple[Array, Array]:
    """The distinct `values` [n >= 1] in order, and the share of all that each is not exceeded by: the empirical cdf."""
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
