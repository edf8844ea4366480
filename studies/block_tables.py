"""Simulate whole tables without a difference: false verdicts, coverage and width, by pairs and pooled."""

from __future__ import annotations

import argparse
import math
from dataclasses import replace

import numpy as np
from kept import SETTINGS, Share, keep, kept
from noise import Array
from numpy.typing import NDArray
from repeats import Launches
from scipy import special
from table_noise import MEASURED, TABLE_NOISES, measured_tables

from rollout_bench.analysis.stats.blocks import Contrasts, contrasts, half_widths
from rollout_bench.contracts.fields import Strict

ALPHA = 1 - SETTINGS.confidence
CONFIGURATIONS = (2, 3, 6)
BLOCKS = (2, 3, 5, 12)

FOUND = 0.8
"""Share of tables that find the size of which `Simulated.smaller` is the ratio."""


class Simulated(Strict):
    """Tables of `configurations` in `blocks` blocks under one noise, nothing of which differs.

    `false` counts tables with some p below 0.05, `covered` intervals of the configuration whose intervals hold the
    truth least often, once each pair judged alone with Holm's method (`paired_`), and by one model of all blocks;
    `shared_false` is by that model where no side is judged by its own degrees of freedom.
    `smaller` is the size that the first comparison finds in 80 % of tables (as a logarithm), pooled over paired.
    """

    noise: str
    configurations: int
    blocks: int
    paired_false: Share
    false: Share
    shared_false: Share
    paired_covered: Share
    covered: Share
    smaller: float


class Missing(Strict):
    """Normal noise, one launch in ten not valid: what becomes of a comparison.

    `none` is the share of comparisons without any interval, where each keeps its own pairs and where whole blocks are
    left out. `whole_wider` is the half width of whole blocks over that of own pairs, `least_squares_wider` the same of
    the standard error of least squares over all cells: geometric means of tables in which something is missing, among
    comparisons that have both.
    """

    configurations: int
    blocks: int
    none: Share
    none_whole: Share
    whole_wider: float
    least_squares_wider: float


class BlockTables(Strict):
    """Everything that was simulated."""

    seed: int
    tables: int
    confidence: float
    simulated: list[Simulated]
    missing: list[Missing]


def log_ratios(values: Array) -> Array:
    """Log ratios [..., m, k - 1] of log values [..., m, k] to the first configuration."""
    return np.asarray(values[..., 1:] - values[..., :1])


def with_spread(values: Array, spread: float) -> Array:
    """Scale log values [..., m, k] so that launches spread by `spread`: half widths mean the same for each noise."""
    return np.asarray(values * (math.sqrt(2) * spread / np.nanstd(log_ratios(values))))


def _paired(d: Array) -> tuple[Array, Array, NDArray[np.int_]]:
    """Mean and standard error of each comparison by its own pairs alone, and how many these are."""
    n = np.isfinite(d).sum(axis=-2)
    enough = np.where(n >= 2, n, 1)
    mean = np.nansum(d, axis=-2) / enough
    separate = np.nansum((d - mean[..., None, :]) ** 2, axis=-2) / np.maximum(enough - 1, 1)
    return np.where(n >= 2, mean, np.nan), np.where(n >= 2, np.sqrt(separate / enough), np.nan), n


def simulated(noise: str, values: Array) -> Simulated:
    """Judge tables of log values [tables, m, k] both ways."""
    _, m, k = values.shape
    d = log_ratios(values)
    mean, error, n = _paired(d)
    freedom = np.maximum(n - 1, 1)
    t = np.abs(mean) / error
    p = np.where(np.isfinite(t), 2 * special.stdtr(freedom, -np.nan_to_num(t)), 1.0)
    alone = special.stdtrit(freedom, 1 - ALPHA / 2) * error
    strict = special.stdtrit(freedom, 1 - ALPHA / (k - 1) / 2) * error
    pooled = contrasts(d)
    half = half_widths(pooled, ALPHA)
    shared = half_widths(replace(pooled, own_error=np.zeros_like(pooled.error)), ALPHA)
    return Simulated(
        noise=noise,
        configurations=k,
        blocks=m,
        paired_false=_share(p.min(axis=-1) * (k - 1) < ALPHA),
        false=_share((np.abs(pooled.log_ratio) > half).any(axis=-1)),
        shared_false=_share((np.abs(pooled.log_ratio) > shared).any(axis=-1)),
        paired_covered=_worst(np.abs(mean), alone),
        covered=_worst(np.abs(pooled.log_ratio), half),
        smaller=_found_by_most(mean, half) / _found_by_most(mean, strict),
    )


def _share(hits: NDArray[np.bool_]) -> Share:
    return Share(count=int(hits.sum()), of=hits.size)


def _worst(distance: Array, half: Array) -> Share:
    shares = [
        _share(one[np.isfinite(width)] <= width[np.isfinite(width)])
        for one, width in zip(distance.T, half.T, strict=True)
    ]
    return min(shares, key=lambda share: share.value)


def _found_by_most(mean: Array, half: Array) -> float:
    """Return the true log ratio of the first comparison that most tables would have found, from those without one."""
    needed = (half - mean)[:, 0]
    return float(np.quantile(np.where(np.isfinite(needed), needed, np.inf), FOUND, method="lower"))


def missing(values: Array) -> Missing:
    """Return what the first comparison of tables [tables, m, k] is left with where launches are missing."""
    _, m, k = values.shape
    d = log_ratios(values)
    finite = np.isfinite(d)
    pairs = contrasts(d)
    whole = contrasts(np.where(finite.all(axis=-1, keepdims=True), d, np.nan))
    half, half_whole = (half_widths(one, ALPHA)[:, 0] for one in (pairs, whole))
    both = np.isfinite(half) & np.isfinite(half_whole) & ~finite.all(axis=(-2, -1))
    return Missing(
        configurations=k,
        blocks=m,
        none=_share(~np.isfinite(half)),
        none_whole=_share(~np.isfinite(half_whole)),
        whole_wider=_mean_factor(half_whole[both] / half[both]),
        least_squares_wider=_mean_factor(_least_squares_error(d, pairs)[both] / pairs.error[both, 0]),
    )


def _mean_factor(factors: Array) -> float:
    return float(np.exp(np.log(factors).mean())) if factors.size else 1.0


def _least_squares_error(d: Array, pairs: Contrasts) -> Array:
    """Return the standard error of the first comparison by the least-squares fit to all cells, with the same guard."""
    present = (np.isfinite(d) & (pairs.pairs[:, None, :] > 0)).astype(float)
    information = -np.einsum("tij,til->tjl", present / (present.sum(axis=-1) + 1)[..., None], present)
    places = np.arange(d.shape[-1])
    information[:, places, places] += np.where(pairs.pairs > 0, pairs.pairs, 1.0)
    m = np.maximum(pairs.pairs[:, 0], 1)
    variance = pairs.pooled_error[:, 0] ** 2 * m / 2 * np.linalg.inv(information)[:, 0, 0]
    guarded = pairs.error[:, 0] > pairs.pooled_error[:, 0]
    return np.where(guarded, np.maximum(np.sqrt(variance), pairs.error[:, 0]), np.sqrt(variance))


def simulate(launches: Launches | None, tables: int, seed: int) -> BlockTables:
    """All kinds of noise with all sizes of tables; those of `launches`, where there are enough, too."""
    cells, cut = [], []
    for number, (noise, draw) in enumerate(TABLE_NOISES.items()):
        for k in CONFIGURATIONS:
            for m in BLOCKS:
                values = draw(np.random.default_rng([seed, number, k, m]), tables, m, k)
                lacking = np.isnan(values).any()
                if lacking and m == min(BLOCKS):
                    continue  # most tables would have no interval at all
                cells.append(simulated(noise, values))
                if lacking:
                    cut.append(missing(values))
    if launches is not None and launches.launches:
        for k in CONFIGURATIONS:
            for m in BLOCKS:
                rng = np.random.default_rng([seed, len(TABLE_NOISES), k, m])
                cells.append(simulated(MEASURED, measured_tables(launches, rng, tables, m, k)))
    return BlockTables(
        seed=seed,
        tables=tables,
        confidence=SETTINGS.confidence,
        simulated=cells,
        missing=cut,
    )


def main() -> None:
    """Simulate, print a line for each noise with three configurations, keep the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=int, default=20_000, help="of each cell (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the random numbers (default: %(default)s)")
    arguments = parser.parse_args()
    result = simulate(kept("launches", Launches), arguments.tables, arguments.seed)
    for cell in result.simulated:
        if cell.configurations == 3:
            shares = " -> ".join(f"{100 * share.value:.1f}" for share in (cell.paired_false, cell.false))
            print(f"{cell.noise}, {cell.blocks} blocks: false {shares} %, size x{cell.smaller:.2f}")
    print(keep("block_tables", result))


if __name__ == "__main__":
    main()
