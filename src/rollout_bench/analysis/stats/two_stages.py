"""Blocks in two stages: the spread of the first blocks determines the total number of blocks. Pure functions on arrays.

Source: Stein, "A two-sample test for a linear hypothesis whose power is independent of the variance", Annals of
Mathematical Statistics 16, 1945.

The first stage gives the spread and its degrees of freedom. With the critical value of `stats.blocks`, these give the
number of blocks at which the interval has the wanted width. With normal noise, the spread of the first blocks is
independent of all means, so the number of blocks is independent of them as well. The interval with this spread
therefore has its nominal coverage, for any true spread and any limit of the second stage. The spread of all blocks
would be wrong here. If the first blocks have a small spread by luck, the second stage is short, and the bias remains.

A machine that is quiet only during the first stage would give an interval that is too narrow. So a second interval uses
the spread of all blocks, as if their number had been fixed, and the result is the wider of the two. It covers at least
as often as the first, and remains valid if the spread changes.

Not covered: ending the run or adding blocks because of the observed difference.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rollout_bench.analysis.stats.blocks import Contrasts, contrasts, half_widths

FIRST = 3
"""Blocks of the first stage."""

ALONE = 4
"""Minimum blocks of the first stage if only one configuration is compared with the baseline. Three blocks would leave
two degrees of freedom, and a critical value that needs 1.8 times as many blocks.
"""

_COUNTLESS = 10**9
"""Upper limit of a computed number of blocks, also used if no number would be enough."""


@dataclass(frozen=True)
class FirstStage:
    """Result of the first stage for one configuration.

    `blocks` are its pairs in the first stage. `spread` is the standard deviation of a pair's log ratio for its
    interval. `needed` is the number of blocks for the wanted half width, without the limit.
    """

    blocks: int
    spread: float
    needed: int


@dataclass(frozen=True)
class TwoStages:
    """Number of blocks for configurations that share a baseline.

    It makes each interval reach at most `half_width` (a fraction: 0.01 for 1 %) from its ratio. It is at least `FIRST`
    and at most `max_blocks`. `confidence` holds for all intervals together.
    """

    half_width: float
    max_blocks: int
    confidence: float

    def first(self, comparisons: int) -> int:
        """Return the number of blocks of the first stage for that many comparisons."""
        return min(self.max_blocks, ALONE if comparisons == 1 else FIRST)

    def of(self, log_ratios: ArrayLike) -> tuple[tuple[Contrasts, Contrasts], list[FirstStage | None]]:
        """Return the contrasts of one table of `log_ratios` [m, k - 1], and the first stage of each configuration.

        The contrasts come from `two_stage_contrasts`. The first stage is None for a configuration with too few pairs
        for it.
        """
        d = np.asarray(log_ratios, dtype=float)
        first = self.first(int((np.isfinite(d).sum(axis=0) >= 2).sum()))
        estimates = two_stage_contrasts(d, first)
        stage = estimates[0]
        if not stage.comparisons:
            return estimates, [None] * d.shape[-1]
        spread = stage.error * np.sqrt(stage.pairs)
        needed = blocks_needed(half_widths(stage, 1 - self.confidence) * np.sqrt(stage.pairs), 1.0, self.half_width)
        return estimates, [
            FirstStage(first, float(spread[place]), int(needed[place])) if pairs >= first else None
            for place, pairs in enumerate(stage.pairs)
        ]

    def within(self, needed: int, comparisons: int) -> int:
        """Return `needed` limited to the allowed number of blocks: at least the first stage, at most `max_blocks`."""
        return min(self.max_blocks, max(self.first(comparisons), needed))


def two_stage_contrasts(log_ratios: ArrayLike, first: int) -> tuple[Contrasts, Contrasts]:
    """Return two estimates: with the spread of each configuration's first `first` pairs, and with all blocks' spread.

    The interval is the wider of both, and the p value the larger. `log_ratios` [..., m, k - 1] are in the order of
    launches, NaN if a block has no pair of a configuration. The first stage of a configuration is its own first pairs:
    the next launch replaces a failed or invalid one, and no configuration waits for another. In the first estimate,
    spread, degrees of freedom and correlation come from `contrasts` over these pairs. d_j is the mean of all n_j
    pairs, and its error is sqrt(max(2 s^2, s_j^2) / n_j). The second estimate is the result of `contrasts` for all
    blocks.

    Raises:
        ValueError: fewer than two dimensions.
    """
    d = np.asarray(log_ratios, dtype=float)
    finite = np.isfinite(d)
    stage = contrasts(np.where(np.cumsum(finite, axis=-2) <= first, d, np.nan))
    pairs = np.where(stage.pairs > 0, finite.sum(axis=-2), 0)
    longer = np.sqrt(stage.pairs / np.maximum(pairs, 1))
    mean = np.where(finite, d, 0.0).sum(axis=-2) / np.maximum(pairs, 1)
    of_first = replace(
        stage,
        log_ratio=np.where(pairs > 0, mean, np.nan),
        error=stage.error * longer,
        pooled_error=stage.pooled_error * longer,
        pairs=pairs,
        own_error=stage.own_error * longer,
    )
    return of_first, contrasts(d)


def blocks_needed(spread: ArrayLike, critical: ArrayLike, half_width: float) -> NDArray[np.int_]:
    """Return the number of blocks for an interval of `half_width` (a fraction): ceil((c spread / ln(1 + h))^2).

    The shapes of `spread` and `critical` are broadcast. The result is 0 if the spread is NaN.
    """
    wanted = np.ceil((np.asarray(critical) * np.asarray(spread, dtype=float) / np.log1p(half_width)) ** 2)
    return np.asarray(np.nan_to_num(np.minimum(wanted, _COUNTLESS)), dtype=int)
