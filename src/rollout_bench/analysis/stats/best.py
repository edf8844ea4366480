"""Which configurations of a table may be the best one, measured in blocks. A pure function.

The set of those that can't be told from the best holds the one that truly is the best with the confidence that is
asked for, whichever that is (Gupta, "On some multiple decision (selection and ranking) rules", Technometrics 7, 1965;
Hsu, "Constrained simultaneous confidence intervals for multiple comparisons with the best", Annals of Statistics 12,
1984). To show the highest mean alone would name a wrong one as often as chance likes.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rollout_bench.analysis.stats.blocks import BALANCED, Array, critical_value

MIN_SHARED = 2
"""Blocks that two configurations must share for one to rule out the other."""


def may_be_best(
    log_ratios: ArrayLike, spread: float, freedom: int, level: float, correlation: float = BALANCED
) -> list[bool]:
    """Return of the baseline, and of each of k - 1 configurations, whether it may be the best one: [k].

    Configuration i is ruled out where some j surely is better. The truly best one is then ruled out with a chance of
    at most `level`: only if one of the others, which are no better, looks better by so much.

    Args:
        log_ratios: logarithms of the ratio to the baseline [m, k - 1], above 0 is better; NaN where a block has none.
        spread: standard deviation s > 0 of the logarithm of one value, from the whole table.
        freedom: its degrees of freedom.
        level: chance to rule out the best one.
        correlation: of two means of ratios to one configuration; less than `BALANCED` where blocks are missing.

    Raises:
        ValueError: `log_ratios` has not two dimensions.
    """
    better = surely_better(with_baseline(log_ratios), spread, freedom, level, correlation)
    return [not beaten for beaten in np.atleast_1d(better.any(axis=0))]


def with_baseline(log_ratios: ArrayLike) -> Array:
    """Return the logarithms [m, k] of k configurations as ratios to the first, from those of the others [m, k - 1].

    Raises:
        ValueError: `log_ratios` has not two dimensions.
    """
    ratios = np.asarray(log_ratios, dtype=float)
    if ratios.ndim != 2:
        raise ValueError("blocks need two dimensions: blocks and configurations")
    return np.column_stack([np.zeros(len(ratios)), ratios])


def surely_better(
    logs: ArrayLike, spread: float, freedom: int, level: float, correlation: float = BALANCED
) -> NDArray[np.bool_]:
    """Return whether configuration i surely is better than j: [k, k].

    It is where i is ahead by more than c se_ij in the mean of the blocks that both have,
    se_ij^2 = max(2 s^2, s_ij^2) / m_ij with the sample variance s_ij^2 of their differences, which guards against one
    that scatters more than the others. c is Dunnett's one-sided point for k - 1 comparisons: where no
    other one is better than j, some other one is found to be with a chance of at most `level`.

    Args:
        logs: logarithms of k configurations in m blocks [m, k], higher is better; NaN where a block has none. What a
            block adds to all of its values does not matter.
        spread: standard deviation s > 0 of the logarithm of one value, from the whole table.
        freedom: its degrees of freedom.
        level: chance to find any that is better than j where none is.
        correlation: of two means of ratios to one configuration; less than `BALANCED` where blocks are missing.
    """
    values = np.asarray(logs, dtype=float)
    count = values.shape[1]
    critical = critical_value(max(1, count - 1), freedom, level, correlation, one_sided=True)
    found = np.zeros((count, count), dtype=bool)
    for one, other in itertools.permutations(range(count), 2):
        ahead = values[:, one] - values[:, other]
        ahead = ahead[np.isfinite(ahead)]
        if len(ahead) >= MIN_SHARED:
            variance = max(2 * spread**2, float(ahead.var(ddof=1)))
            found[one, other] = ahead.mean() > critical * np.sqrt(variance / len(ahead))
    return found
