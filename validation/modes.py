"""Simulate modes that engines choose at their start: how often few blocks find a difference that is not there."""

from __future__ import annotations

import argparse
import itertools

import numpy as np
from block_tables import ALPHA, log_ratios
from kept import Share, keep

from rollout_bench.analysis.stats.blocks import contrasts, half_widths
from rollout_bench.analysis.timed.comparison import MODE_SHARE
from rollout_bench.contracts.fields import Strict

SHARE = MODE_SHARE
SLOWER = (0.10, 0.02)
NOISES = (0.001, 0.003, 0.01, 0.03)
"""Standard deviations of a block's value, as a logarithm; 0.1 % is what an H200 that does nothing else shows."""

BLOCKS = (2, 3, 5, 6, 9)
CONFIGURATIONS = (2, 6)


class Cell(Strict):
    """Tables in which a share of the baseline's starts is `slower`, by how many blocks and how much these scatter."""

    configurations: int
    slower: float
    noise: float
    blocks: int
    false: Share


class Modes(Strict):
    """Everything that was simulated, nothing of which differs on average."""

    seed: int
    tables: int
    share: float
    cells: list[Cell]


def cell(rng: np.random.Generator, tables: int, configurations: int, slower: float, noise: float, blocks: int) -> Cell:
    """Return how many of so many tables have a false verdict."""
    values = noise * rng.normal(size=(tables, blocks, configurations))
    values[..., 0] -= np.log1p(slower) * ((rng.random((tables, blocks)) < SHARE) - SHARE)
    found = contrasts(log_ratios(values))
    false = (np.abs(found.log_ratio) > half_widths(found, ALPHA)).any(axis=-1)
    return Cell(
        configurations=configurations,
        slower=slower,
        noise=noise,
        blocks=blocks,
        false=Share(count=int(false.sum()), of=tables),
    )


def simulate(tables: int, seed: int) -> Modes:
    """Return all sizes of tables under all noises."""
    rng = np.random.default_rng(seed)
    every = itertools.product(CONFIGURATIONS, SLOWER, NOISES, BLOCKS)
    cells = [cell(rng, tables, *each) for each in every]
    return Modes(seed=seed, tables=tables, share=SHARE, cells=cells)


def main() -> None:
    """Simulate and keep the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=int, default=20_000, help="of each cell (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the random numbers (default: %(default)s)")
    arguments = parser.parse_args()
    print(keep("modes", simulate(arguments.tables, arguments.seed)))


if __name__ == "__main__":
    main()
