"""Statistics as pure functions on arrays. Nothing here knows of records, tables or files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike


def mean(values: ArrayLike) -> float:
    """Arithmetic mean of `values` [n >= 1], in their unit."""
    return float(np.mean(np.asarray(values, dtype=float)))


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


def ratio_of_means(values: ArrayLike, baseline: ArrayLike) -> float | None:
    """mean(values) / mean(baseline), without a unit; None where either is empty or the divisor is zero."""
    a, b = np.asarray(values, dtype=float), np.asarray(baseline, dtype=float)
    if not a.size or not b.size or not b.mean():
        return None
    return float(a.mean() / b.mean())


def pair_ratios(values: Mapping[int, float], baseline: Mapping[int, float]) -> dict[int, float]:
    """values[i] / baseline[i] for each launch index i that both have, in order; zero divisors left out."""
    both = sorted(values.keys() & baseline.keys())
    return {launch: values[launch] / baseline[launch] for launch in both if baseline[launch]}
