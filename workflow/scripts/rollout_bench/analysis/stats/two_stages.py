"""Blocks in two stages: the spread of the first ones says how many there are to be. Pure functions on arrays.

Stein, "A two-sample test for a linear hypothesis whose power is independent of the variance", Annals of Mathematical
Statistics 16, 1945. The first stage gives the spread, its degrees of freedom and, with the critical value of
`stats.blocks`, the number of blocks at which the interval is as narrow as it is wanted. The interval after all blocks
is then made with the spread of the first stage alone. Of normal noise the spread of the first blocks is independent of
all means, so the number of blocks is, too, and the interval covers the truth as often as it says, whatever the true
spread is and wherever a limit ends the second stage. To estimate the spread anew from all blocks would be wrong: where
it comes out small by luck the second stage is short, and the luck stays in.

What this does not cover: ending the run, or asking for more, because of what the difference looks like.
`stats.sequential` is for that.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rollout_bench.analysis.stats.blocks import Array, Contrasts, contrasts, half_widths

ALONE = 4
"""Blocks of the first stage where only one configuration is compared with the baseline, at the least: three would leave
two degrees of freedom, and a critical value that takes 1.8 times as many blocks."""

_COUNTLESS = 10**9
"""More blocks than anybody runs; as many where no number would do."""


@dataclass(frozen=True)
class FirstStage:
    """What the first stage said of one configuration.

    `blocks` are its pairs in the first stage, `spread` is the standard deviation of a pair's log ratio that its
    interval is made with, `needed` how many blocks the wanted half width takes, whatever the limit.
    """

    blocks: int
    spread: float
    needed: int


@dataclass(frozen=True)
class TwoStages:
    """How many blocks configurations that share a baseline are to have.

    As many as make each interval reach no further than `half_width` (a fraction: 0.01 for 1 %) off its ratio, at least
    `min_blocks`, at most `max_blocks`. `confidence` is that of all intervals together.
    """

    half_width: float
    min_blocks: int
    max_blocks: int
    confidence: float

    def first(self, comparisons: int) -> int:
        """Return how many blocks the first stage has where so many configurations are compared."""
        return min(self.max_blocks, max(self.min_blocks, ALONE if comparisons == 1 else 2))

    def of(self, log_ratios: ArrayLike) -> tuple[Contrasts, list[FirstStage | None]]:
        """Return the contrasts of one table of `log_ratios` [m, k - 1], and what the first stage said of each.

        None for a configuration that has fewer pairs than the first stage takes.
        """
        d = np.asarray(log_ratios, dtype=float)
        first = self.first(int((np.isfinite(d).sum(axis=0) >= 2).sum()))
        found = two_stage_contrasts(d, first)
        if not found.comparisons:
            return found, [None] * d.shape[-1]
        reach = half_widths(found, 1 - self.confidence) * np.sqrt(found.pairs)
        needed = blocks_asked(reach, 1.0, self.half_width)
        return found, [
            FirstStage(first, float(found.spread[place]), int(needed[place])) if pairs >= first else None
            for place, pairs in enumerate(found.pairs)
        ]

    def within(self, needed: int, comparisons: int) -> int:
        """Return how many blocks there are to be where `needed` are: at least the first stage, at most `max_blocks`."""
        return min(self.max_blocks, max(self.first(comparisons), needed))


@dataclass(frozen=True)
class StagedContrasts(Contrasts):
    """Contrasts whose errors come from the first stage alone.

    `first` [..., k - 1] are the pairs of the first stage, `spread` [..., k - 1] is the standard deviation of a pair's
    log ratio that it gives: sqrt(max(2 s^2, s_j^2)).
    """

    first: NDArray[np.int_]
    spread: Array


def two_stage_contrasts(log_ratios: ArrayLike, first: int) -> StagedContrasts:
    """Estimate as `blocks.contrasts` does, with the spread of the first `first` pairs of each configuration.

    From `log_ratios` [..., m, k - 1] in the order of launches, NaN where a block has no pair of a configuration. The
    first stage of a configuration are its own first pairs: a launch that failed or is invalid is made up for by the
    next one, and no configuration waits for another. Spread, degrees of freedom and correlation are those of
    `contrasts` over these pairs; d_j is the mean of all n_j pairs, and its error sqrt(max(2 s^2, s_j^2) / n_j).

    Raises:
        ValueError: fewer than two dimensions.
    """
    d = np.asarray(log_ratios, dtype=float)
    there = np.isfinite(d)
    stage = contrasts(np.where(np.cumsum(there, axis=-2) <= first, d, np.nan))
    pairs = np.where(stage.pairs > 0, there.sum(axis=-2), 0)
    longer = np.sqrt(stage.pairs / np.maximum(pairs, 1))
    mean = np.where(there, d, 0.0).sum(axis=-2) / np.maximum(pairs, 1)
    return StagedContrasts(
        log_ratio=np.where(pairs > 0, mean, np.nan),
        error=stage.error * longer,
        pooled_error=stage.pooled_error * longer,
        pairs=pairs,
        freedom=stage.freedom,
        comparisons=stage.comparisons,
        correlation=stage.correlation,
        own_error=stage.own_error * longer,
        own_freedom=stage.own_freedom,
        first=stage.pairs,
        spread=stage.error * np.sqrt(stage.pairs),
    )


def blocks_asked(spread: ArrayLike, critical: ArrayLike, half_width: float) -> NDArray[np.int_]:
    """Return how many blocks make an interval reach `half_width` (a fraction): ceil((c spread / ln(1 + h))^2).

    `spread` and `critical` have shapes that go together; where the spread is NaN, 0.
    """
    wanted = np.ceil((np.asarray(critical) * np.asarray(spread, dtype=float) / np.log1p(half_width)) ** 2)
    return np.asarray(np.nan_to_num(np.minimum(wanted, _COUNTLESS)), dtype=int)
