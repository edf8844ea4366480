"""Simulate `launches: auto`: by the spread of the first blocks (the default), and looking after each launch."""

from __future__ import annotations

import argparse
import dataclasses
import math

import numpy as np
from block_tables import log_ratios, with_spread
from kept import SETTINGS, Share, keep
from noise import Array
from numpy.typing import NDArray
from table_noise import TABLE_NOISES

from rollout_bench.analysis.stats.blocks import half_widths
from rollout_bench.analysis.stats.intervals import holm, ratio_interval
from rollout_bench.analysis.stats.sequential import StoppingRule
from rollout_bench.analysis.stats.two_stages import ALONE, blocks_asked, two_stage_contrasts
from rollout_bench.contracts.fields import Strict
from rollout_bench.plan.config import Precision

_DEFAULT = Precision()
RULE = StoppingRule(_DEFAULT.half_width, _DEFAULT.min_launches, _DEFAULT.max_launches, SETTINGS.confidence)
"""The rule that looks after each launch."""

ALPHA = 1 - SETTINGS.confidence
CONFIGURATIONS = (2, 3, 4)
HALF_WIDTHS = (0.04, 0.06, 0.10)
SPREAD = 0.05
"""Of launches, as a logarithm: what half widths are asked for under."""

MOST = 24
"""Blocks at most."""

FIRST = (_DEFAULT.min_launches, ALONE, 6)
"""Blocks of the first stage that are simulated; a single comparison has at least the second by itself."""


class Stopped(Strict):
    """Tables of `configurations`, nothing of which differs, that a rule ended.

    The rule is asked for `half_width` where launches spread by `SPREAD`, and for the same multiple of the spread under
    any other noise. `first` are the blocks of the first stage, or at the first look. `false` counts tables with some
    false finding, `covered` those all of whose intervals hold the truth; `blocks` is the mean number, `cut` counts
    tables that the limit ended before the half width was reached.
    """

    noise: str
    configurations: int
    half_width: float
    first: int
    false: Share
    covered: Share
    blocks: float
    cut: Share


class Stopping(Strict):
    """Everything that was simulated.

    `spread`, `interval` are the rules as they are; `apart` is `spread` where each configuration stops by itself, as
    launches do that are not interleaved.
    """

    seed: int
    tables: int
    confidence: float
    most: int
    spread: list[Stopped]
    apart: list[Stopped]
    interval: list[Stopped]


def auto_comparisons(ratios: Array, rule: StoppingRule = RULE) -> tuple[NDArray[np.int_], Array, Array]:
    """Return after how many pairs the rule stops each of log `ratios` [comparisons, max_pairs], ratio and p value.

    The p values hold over all looks together.
    """
    pairs = rule.stopped(ratios)
    middle, p_values = np.empty(len(pairs)), np.empty(len(pairs))
    for number in np.unique(pairs):
        chosen = pairs == number
        taken = ratios[chosen, :number]
        middle[chosen] = taken.mean(axis=-1)
        p_values[chosen] = [rule.looks.overall(float(p)) for p in ratio_interval(taken, rule.confidence).p_value]
    return pairs, middle, p_values


def by_spread(d: Array, half_width: float, first: int, together: bool = True) -> tuple[Array, Array, Array]:
    """Return distance, half width and blocks [tables, k - 1] where the first stage of log ratios `d` decides.

    `d` [tables, most, k - 1] has NaN where there is no pair. `together`: all configurations go on as long as any of
    them does. A number of blocks is that of pairs, or all there are where it does not come to so many.
    """
    rank = np.cumsum(np.isfinite(d), axis=1)
    stage = two_stage_contrasts(np.where(rank <= first, d, np.nan), first)
    reach = half_widths(stage, ALPHA) * np.sqrt(stage.pairs)
    asked = np.clip(blocks_asked(reach, 1.0, half_width), first, d.shape[1])
    reached = np.where(rank[:, -1] >= asked, (rank >= asked[:, None, :]).argmax(axis=1) + 1, d.shape[1])
    if together:
        reached = np.broadcast_to(reached.max(axis=-1, keepdims=True), reached.shape)
    taken = np.arange(1, d.shape[1] + 1)[:, None] <= reached[:, None, :]
    found = two_stage_contrasts(np.where(taken, d, np.nan), first)
    return np.abs(found.log_ratio), half_widths(found, ALPHA), reached.astype(float)


def spread_stopped(noise: str, values: Array, half_width: float, first: int, together: bool = True) -> Stopped:
    """Judge tables of log values [tables, most, k] as `precision.stop: spread` does."""
    distance, half, blocks = by_spread(log_ratios(values), half_width, first, together)
    false = (distance > half).any(axis=-1)
    return _stopped(noise, values, half_width, first, false, false, half, blocks)


def interval_stopped(noise: str, values: Array, half_width: float, first: int) -> Stopped:
    """Judge tables of log values [tables, most, k] as `precision.stop: interval` does: each pair by itself."""
    d = np.moveaxis(log_ratios(values), -1, 1)
    rule = dataclasses.replace(RULE, half_width=half_width, min_pairs=first, max_pairs=d.shape[-1])
    pairs, middle, p_values = auto_comparisons(d.reshape(-1, d.shape[-1]), rule)
    half = np.empty(len(pairs))
    for number in np.unique(pairs):
        found = ratio_interval(d.reshape(-1, d.shape[-1])[pairs == number, :number], rule.level)
        half[pairs == number] = np.log(found.high / found.ratio)
    shape = d.shape[:2]
    false = (holm(p_values.reshape(shape)) < ALPHA).any(axis=-1)
    missed = (np.abs(middle) > half).reshape(shape).any(axis=-1)
    return _stopped(noise, values, half_width, first, false, missed, half.reshape(shape), pairs.reshape(shape))


def _stopped(
    noise: str,
    values: Array,
    half_width: float,
    first: int,
    false: NDArray[np.bool_],
    missed: NDArray[np.bool_],
    half: Array,
    blocks: Array,
) -> Stopped:
    wide = half > math.log1p(half_width) * (1 + 1e-9)
    return Stopped(
        noise=noise,
        configurations=values.shape[-1],
        half_width=half_width,
        first=first,
        false=Share(count=int(false.sum()), of=len(false)),
        covered=Share(count=int((~missed).sum()), of=len(missed)),
        # The baseline is launched as often as whatever goes on longest.
        blocks=float(np.asarray(blocks).max(axis=-1).mean()),
        cut=Share(count=int(wide.any(axis=-1).sum()), of=len(wide)),
    )


def simulate(tables: int, seed: int) -> Stopping:
    """Return normal noise with all sizes of tables and half widths, and each other noise with three configurations."""
    found = Stopping(
        seed=seed, tables=tables, confidence=SETTINGS.confidence, most=MOST, spread=[], apart=[], interval=[]
    )
    for number, (noise, draw) in enumerate(TABLE_NOISES.items()):
        for k in CONFIGURATIONS if noise == "normal" else (3,):
            values = with_spread(draw(np.random.default_rng([seed, number, k]), tables, MOST, k), SPREAD)
            for half_width in HALF_WIDTHS if noise == "normal" else HALF_WIDTHS[1:2]:
                _add(found, noise, values, half_width)
    return found


def _add(found: Stopping, noise: str, values: Array, half_width: float) -> None:
    for first in FIRST if values.shape[-1] > 2 else FIRST[1:]:
        found.spread.append(spread_stopped(noise, values, half_width, first))
        found.apart.append(spread_stopped(noise, values, half_width, first, together=False))
    if np.isfinite(values).all():
        found.interval.append(interval_stopped(noise, values, half_width, FIRST[0]))


def main() -> None:
    """Simulate, print a line for each kind of table, keep the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=int, default=20_000, help="of each kind (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the random numbers (default: %(default)s)")
    arguments = parser.parse_args()
    result = simulate(arguments.tables, arguments.seed)
    for rule in ("spread", "apart", "interval"):
        for one in getattr(result, rule):
            shares = f"false {one.false}, all covered {one.covered}, {one.blocks:.1f} blocks, cut {one.cut.value:.2f}"
            print(f"{rule}, {one.noise}, k {one.configurations}, {one.half_width:.0%}, first {one.first}: {shares}")
    print(keep("stopping", result))


if __name__ == "__main__":
    main()
