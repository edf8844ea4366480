"""Simulate how often intervals cover a known truth: of pairs under many kinds of noise, of sides apart."""

from __future__ import annotations

import argparse
import math

import numpy as np
from kept import SETTINGS, Share, keep
from noise import NOISES, log_ratios

from rollout_bench.analysis.stats.intervals import ratio_interval, welch_interval
from rollout_bench.contracts.fields import Strict

TRUTH = 1.05
PAIRS = range(3, 13)


class Cell(Strict):
    """How often the interval over `pairs` pairs covered the truth under a noise."""

    noise: str
    pairs: int
    covered: Share


class Coverage(Strict):
    """What was simulated: pairs, and sides that did not take turns (normal noise)."""

    seed: int
    repetitions: int
    truth: float
    confidence: float
    cells: list[Cell]
    apart: list[Cell]


def covered(noise: str, pairs: int, repetitions: int, seed: int) -> Share:
    """Return how many of `repetitions` intervals over so many pairs cover the truth.

    The same for the same arguments.
    """
    rng = np.random.default_rng([seed, list(NOISES).index(noise), pairs])
    logs = math.log(TRUTH) + log_ratios(noise, rng, repetitions, pairs)
    found = ratio_interval(logs, SETTINGS.confidence)
    return Share(count=int(((found.low <= TRUTH) & (found.high >= TRUTH)).sum()), of=repetitions)


def covered_apart(launches: int, repetitions: int, seed: int) -> Share:
    """As `covered`, for sides of so many launches each that did not take turns, with normal noise."""
    rng = np.random.default_rng([seed, launches])
    sides = NOISES["normal"](rng, repetitions, launches)
    found = welch_interval(math.log(TRUTH) + sides[..., 0], sides[..., 1], SETTINGS.confidence)
    return Share(count=int(((found.low <= TRUTH) & (found.high >= TRUTH)).sum()), of=repetitions)


def simulate(repetitions: int, seed: int) -> Coverage:
    """Return all kinds of noise with all numbers of pairs."""
    cells = [
        Cell(noise=noise, pairs=pairs, covered=covered(noise, pairs, repetitions, seed))
        for noise in NOISES
        for pairs in PAIRS
    ]
    apart = [Cell(noise="normal", pairs=n, covered=covered_apart(n, repetitions, seed)) for n in PAIRS]
    return Coverage(
        seed=seed,
        repetitions=repetitions,
        truth=TRUTH,
        confidence=SETTINGS.confidence,
        cells=cells,
        apart=apart,
    )


def main() -> None:
    """Simulate, print a line for each noise, keep the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=40_000, help="of each cell (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the random numbers (default: %(default)s)")
    arguments = parser.parse_args()
    result = simulate(arguments.repetitions, arguments.seed)
    for noise in NOISES:
        shares = [cell.covered for cell in result.cells if cell.noise == noise]
        print(noise, *(f"{100 * share.value:.1f}" for share in shares))
    print(keep("coverage", result))


if __name__ == "__main__":
    main()
