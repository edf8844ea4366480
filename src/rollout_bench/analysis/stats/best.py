"""Configurations of a table that may be the best one, measured in blocks. A pure function.

The set of configurations that are not significantly worse than another holds the true best with the requested
confidence (Gupta, "On some multiple decision (selection and ranking) rules", Technometrics 7, 1965; Hsu, "Constrained
simultaneous confidence intervals for multiple comparisons with the best", Annals of Statistics 12, 1984). Naming only
the highest mean would often name the wrong one by chance.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import ArrayLike

from rollout_bench.analysis.stats.blocks import BALANCED, critical_value

MIN_SHARED = 2
"""Minimum number of blocks that two configurations must share for one to rule out the other."""


def may_be_best(
    log_ratios: ArrayLike, spread: float, freedom: int, level: float, correlation: float = BALANCED
) -> list[bool]:
    """Return for the baseline and for each of k - 1 configurations whether it may be the best one: [k].

    Configuration i is ruled out if some j is significantly better: its mean over the shared blocks is ahead by more
    than c se_ij, with se_ij^2 = max(2 s^2, s_ij^2) / m_ij. s_ij^2 is the sample variance of the differences; it guards
    against a pair with larger scatter than the table. c is Dunnett's one-sided point for k - 1 comparisons. The true
    best is ruled out with a chance of at most `level`, because no other configuration is truly better.

    Args:
        log_ratios: logarithms of the ratio to the baseline [m, k - 1], above 0 is better; NaN if a block has none.
        spread: standard deviation s > 0 of the logarithm of one value, from the whole table.
        freedom: its degrees of freedom.
        level: chance to rule out the best one.
        correlation: of two means of ratios to one configuration; less than `BALANCED` if blocks are missing.

    Raises:
        ValueError: `log_ratios` is not two-dimensional.
    """
    ratios = np.asarray(log_ratios, dtype=float)
    if ratios.ndim != 2:
        raise ValueError("blocks need two dimensions: blocks and configurations")
    values = np.column_stack([np.zeros(len(ratios)), ratios])
    count = values.shape[1]
    critical = critical_value(max(1, count - 1), freedom, level, correlation, one_sided=True)
    may_be = [True] * count
    for one, other in itertools.permutations(range(count), 2):
        ahead = values[:, one] - values[:, other]
        ahead = ahead[np.isfinite(ahead)]
        if len(ahead) >= MIN_SHARED:
            variance = max(2 * spread**2, float(ahead.var(ddof=1)))
            may_be[other] &= not ahead.mean() > critical * np.sqrt(variance / len(ahead))
    return may_be
