"""Blocks in two stages: the spread of the first ones says how many there are to be. Pure functions on arrays.

Stein, "A two-sample test for a linear hypothesis whose power is independent of the variance", Annals of Mathematical
Statistics 16, 1945. The first stage gives the spread, its degrees of freedom and, with the critical value of
`stats.blocks`, the number of blocks at which the interval is as narrow as it is wanted. Of normal noise the spread of
the first blocks is independent of all means, so the number of blocks is, too, and the interval that is made with it
covers the truth as often as it says, whatever the true spread is and wherever a limit ends the second stage. To use the
spread of all blocks in its place would be wrong: where that of the first ones comes out small by luck the second stage
is short, and the luck stays in.

A machine that is quiet during the first stage and not later would leave an interval that is too narrow. So the interval
is the wider one of two: with the spread of the first stage, and with that of all blocks as if their number had been
fixed. It covers at least as much as the first, and holds where the spread changes.

What this does not cover: ending the run, or asking for more, because of what the difference looks like.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rollout_bench.analysis.stats.blocks import Contrasts, contrasts, half_widths

FIRST = 3
"""Blocks of the first stage."""

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
    `FIRST`, at most `max_blocks`. `confidence` is that of all intervals together.
    """

    half_width: float
    max_blocks: int
    confidence: float

    def first(self, comparisons: int) -> int:
        """Return how many blocks the first stage has where so many configurations are compared."""
        return min(self.max_blocks, ALONE if comparisons == 1 else FIRST)

    def of(self, log_ratios: ArrayLike) -> tuple[tuple[Contrasts, Contrasts], list[FirstStage | None]]:
        """Return the contrasts of one table of `log_ratios` [m, k - 1], and what the first stage said of each.

        The contrasts are those of `two_stage_contrasts`. None for a configuration that has fewer pairs than the first
        stage takes.
        """
        d = np.asarray(log_ratios, dtype=float)
        first = self.first(int((np.isfinite(d).sum(axis=0) >= 2).sum()))
        found = two_stage_contrasts(d, first)
        stage = found[0]
        if not stage.comparisons:
            return found, [None] * d.shape[-1]
        spread = stage.error * np.sqrt(stage.pairs)
        needed = blocks_asked(half_widths(stage, 1 - self.confidence) * np.sqrt(stage.pairs), 1.0, self.half_width)
        return found, [
            FirstStage(first, float(spread[place]), int(needed[place])) if pairs >= first else None
            for place, pairs in enumerate(stage.pairs)
        ]

    def within(self, needed: int, comparisons: int) -> int:
        """Return how many blocks there are to be where `needed` are: at least the first stage, at most `max_blocks`."""
        return min(self.max_blocks, max(self.first(comparisons), needed))


def two_stage_contrasts(log_ratios: ArrayLike, first: int) -> tuple[Contrasts, Contrasts]:
    """Return two estimates, with the spread of the first `first` pairs of each configuration, and of all blocks.

    An interval is the wider one of both, and a p value the larger one. From `log_ratios` [..., m, k - 1] in the order
    of launches, NaN where a block has no pair of a configuration. The first stage of a configuration are its own first
    pairs: a launch that failed or is invalid is made up for by the next one, and no configuration waits for another.
    In the first estimate, spread, degrees of freedom and correlation are those of `contrasts` over these pairs; d_j is
    the mean of all n_j pairs, and its error sqrt(max(2 s^2, s_j^2) / n_j). The second is that of `contrasts`.

    Raises:
        ValueError: fewer than two dimensions.
    """
    d = np.asarray(log_ratios, dtype=float)
    there = np.isfinite(d)
    stage = contrasts(np.where(np.cumsum(there, axis=-2) <= first, d, np.nan))
    pairs = np.where(stage.pairs > 0, there.sum(axis=-2), 0)
    longer = np.sqrt(stage.pairs / np.maximum(pairs, 1))
    mean = np.where(there, d, 0.0).sum(axis=-2) / np.maximum(pairs, 1)
    of_first = replace(
        stage,
        log_ratio=np.where(pairs > 0, mean, np.nan),
        error=stage.error * longer,
        pooled_error=stage.pooled_error * longer,
        pairs=pairs,
        own_error=stage.own_error * longer,
    )
    return of_first, contrasts(d)


def blocks_asked(spread: ArrayLike, critical: ArrayLike, half_width: float) -> NDArray[np.int_]:
    """Return how many blocks make an interval reach `half_width` (a fraction): ceil((c spread / ln(1 + h))^2).

    `spread` and `critical` have shapes that go together; where the spread is NaN, 0.
    """
    wanted = np.ceil((np.asarray(critical) * np.asarray(spread, dtype=float) / np.log1p(half_width)) ** 2)
    return np.asarray(np.nan_to_num(np.minimum(wanted, _COUNTLESS)), dtype=int)
