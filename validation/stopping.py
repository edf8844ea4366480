"""Simulate `launches: auto`: the spread of the first blocks says how many there are to be."""

from __future__ import annotations

import argparse
import math

import numpy as np
from block_tables import log_ratios, with_spread
from kept import SETTINGS, Share, keep
from noise import Array
from table_noise import TABLE_NOISES, Tables

from rollout_bench.analysis.stats.blocks import contrasts, half_widths
from rollout_bench.analysis.stats.two_stages import ALONE, blocks_asked, two_stage_contrasts
from rollout_bench.contracts.fields import Strict
from rollout_bench.plan.config import Precision

ALPHA = 1 - SETTINGS.confidence
CONFIGURATIONS = (2, 3, 4)
HALF_WIDTHS = (0.04, 0.06, 0.10)
SPREAD = 0.05
"""Of launches, as a logarithm: what half widths are asked for under."""

MOST = 24
"""Blocks at most."""

FIRST = (Precision().min_launches, ALONE, 6)
"""Blocks of the first stage that are simulated; a single comparison has at least the second by itself."""


class Stopped(Strict):
    """Tables of `configurations`, nothing of which differs, that a rule ended.

    The rule is asked for `half_width` where launches spread by `SPREAD`, and for the same multiple of the spread under
    any other noise. `first` are the blocks of the first stage. `false` counts tables with some
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
    """Everything that was simulated: `apart` is `spread` where each configuration stops by itself, as launches do that
    are not interleaved."""

    seed: int
    tables: int
    confidence: float
    most: int
    spread: list[Stopped]
    apart: list[Stopped]


def _changing(factor: float) -> Tables:
    """Return normal noise that is `factor` times as wide after the shortest first stage."""

    def noise(rng: np.random.Generator, tables: int, m: int, k: int) -> Array:
        values = TABLE_NOISES["normal"](rng, tables, m, k)
        values[:, FIRST[0] :] *= factor
        return values

    return noise


NOISES = TABLE_NOISES | {
    f"the machine is quiet for {FIRST[0]} blocks, then launches spread {word} as much": _changing(factor)
    for word, factor in (("twice", 2.0), ("three times", 3.0))
}


def by_spread(d: Array, half_width: float, first: int, together: bool = True) -> tuple[Array, Array, Array]:
    """Return distance, half width and blocks [tables, k - 1] where the first stage of log ratios `d` decides.

    `d` [tables, most, k - 1] has NaN where there is no pair. `together`: all configurations go on as long as any of
    them does. A number of blocks is that of pairs, or all there are where it does not come to so many.
    """
    rank = np.cumsum(np.isfinite(d), axis=1)
    stage = contrasts(np.where(rank <= first, d, np.nan))
    reach = half_widths(stage, ALPHA) * np.sqrt(stage.pairs)
    asked = np.clip(blocks_asked(reach, 1.0, half_width), first, d.shape[1])
    reached = np.where(rank[:, -1] >= asked, (rank >= asked[:, None, :]).argmax(axis=1) + 1, d.shape[1])
    if together:
        reached = np.broadcast_to(reached.max(axis=-1, keepdims=True), reached.shape)
    taken = np.arange(1, d.shape[1] + 1)[:, None] <= reached[:, None, :]
    found = two_stage_contrasts(np.where(taken, d, np.nan), first)
    half = np.maximum(*(half_widths(one, ALPHA) for one in found))
    return np.abs(found[0].log_ratio), half, reached.astype(float)


def spread_stopped(noise: str, values: Array, half_width: float, first: int, together: bool = True) -> Stopped:
    """Judge tables of log values [tables, most, k] as `launches: auto` does."""
    distance, half, blocks = by_spread(log_ratios(values), half_width, first, together)
    false = (distance > half).any(axis=-1)
    wide = half > math.log1p(half_width) * (1 + 1e-9)
    return Stopped(
        noise=noise,
        configurations=values.shape[-1],
        half_width=half_width,
        first=first,
        false=Share(count=int(false.sum()), of=len(false)),
        covered=Share(count=int((~false).sum()), of=len(false)),
        # The baseline is launched as often as whatever goes on longest.
        blocks=float(blocks.max(axis=-1).mean()),
        cut=Share(count=int(wide.any(axis=-1).sum()), of=len(wide)),
    )


def simulate(tables: int, seed: int) -> Stopping:
    """Return normal noise with all sizes of tables and half widths, and each other noise with three configurations."""
    found = Stopping(seed=seed, tables=tables, confidence=SETTINGS.confidence, most=MOST, spread=[], apart=[])
    for number, (noise, draw) in enumerate(NOISES.items()):
        for k in CONFIGURATIONS if noise == "normal" else (3,):
            values = with_spread(draw(np.random.default_rng([seed, number, k]), tables, MOST, k), SPREAD)
            for half_width in HALF_WIDTHS if noise == "normal" else HALF_WIDTHS[1:2]:
                _add(found, noise, values, half_width)
    return found


def _add(found: Stopping, noise: str, values: Array, half_width: float) -> None:
    for first in FIRST if values.shape[-1] > 2 else FIRST[1:]:
        found.spread.append(spread_stopped(noise, values, half_width, first))
        found.apart.append(spread_stopped(noise, values, half_width, first, together=False))


def main() -> None:
    """Simulate, print a line for each kind of table, keep the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=int, default=20_000, help="of each kind (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the random numbers (default: %(default)s)")
    arguments = parser.parse_args()
    result = simulate(arguments.tables, arguments.seed)
    for rule in ("spread", "apart"):
        for one in getattr(result, rule):
            shares = f"false {one.false}, all covered {one.covered}, {one.blocks:.1f} blocks, cut {one.cut.value:.2f}"
            print(f"{rule}, {one.noise}, k {one.configurations}, {one.half_width:.0%}, first {one.first}: {shares}")
    print(keep("stopping", result))


if __name__ == "__main__":
    main()
