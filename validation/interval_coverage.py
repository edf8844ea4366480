"""Simulate how often intervals cover a known truth: of pairs under many kinds of noise, of `auto`, of sides apart."""

from __future__ import annotations

import argparse
import dataclasses
import math

import numpy as np
from kept import SETTINGS, Share, keep
from noise import NOISES, log_ratios
from stopping import RULE

from rollout_bench.analysis.stats.intervals import ratio_interval, welch_interval
from rollout_bench.contracts.fields import Strict

TRUTH = 1.05
PAIRS = range(3, 13)

STOPPING = (
    "normal",
    "exponential delays on both sides",
    "exponential delays on one side, normal on the other",
    "lognormal delays (sigma 1) on one side, normal on the other",
    "heavy tails: Student's t with 3 degrees of freedom",
)
"""Kinds of noise under which `launches: auto` is simulated."""

WANTED = (0.5, 0.75, 1.0, 1.5, 2.5)
"""Half widths, in standard deviations of a log ratio: from one that is hardly ever reached to one that nearly always is
at the least number of pairs."""


class Cell(Strict):
    """How often the interval over `pairs` pairs covered the truth under a noise."""

    noise: str
    pairs: int
    covered: Share


class Stopped(Strict):
    """How often the interval at which `launches: auto` stops covered the truth, and after how many pairs on average.

    `wanted` is the half width that was asked for, in standard deviations of a log ratio under that noise.
    """

    noise: str
    wanted: float
    pairs: float
    covered: Share


class Coverage(Strict):
    """What was simulated: pairs, launches that stop by themselves, sides that did not take turns (normal noise)."""

    seed: int
    repetitions: int
    truth: float
    confidence: float
    cells: list[Cell]
    stopped: list[Stopped]
    apart: list[Cell]


def covered(noise: str, pairs: int, repetitions: int, seed: int) -> Share:
    """Return how many of `repetitions` intervals over so many pairs cover the truth.

    The same for the same arguments.
    """
    rng = np.random.default_rng([seed, list(NOISES).index(noise), pairs])
    logs = math.log(TRUTH) + log_ratios(noise, rng, repetitions, pairs)
    found = ratio_interval(logs, SETTINGS.confidence)
    return Share(count=int(((found.low <= TRUTH) & (found.high >= TRUTH)).sum()), of=repetitions)


def covered_when_stopped(noise: str, wanted: float, repetitions: int, seed: int) -> Stopped:
    """As `covered`, where each comparison goes on until its half width is `wanted` standard deviations, or the end."""
    rng = np.random.default_rng([seed, list(NOISES).index(noise), round(100 * wanted)])
    noises = log_ratios(noise, rng, repetitions, RULE.max_pairs)
    rule = dataclasses.replace(RULE, half_width=math.expm1(wanted * float(noises.std())))
    stops = rule.stopped(noises)
    count = 0
    for pairs in np.unique(stops):
        found = ratio_interval(math.log(TRUTH) + noises[stops == pairs, :pairs], rule.level)
        count += int(((found.low <= TRUTH) & (found.high >= TRUTH)).sum())
    return Stopped(
        noise=noise, wanted=wanted, pairs=round(float(stops.mean()), 1), covered=Share(count=count, of=repetitions)
    )


def covered_apart(launches: int, repetitions: int, seed: int) -> Share:
    """As `covered`, for sides of so many launches each that did not take turns, with normal noise."""
    rng = np.random.default_rng([seed, launches])
    sides = NOISES["normal"](rng, repetitions, launches)
    found = welch_interval(math.log(TRUTH) + sides[..., 0], sides[..., 1], SETTINGS.confidence)
    return Share(count=int(((found.low <= TRUTH) & (found.high >= TRUTH)).sum()), of=repetitions)


def simulate(repetitions: int, seed: int) -> Coverage:
    """Return all kinds of noise with all numbers of pairs, and some that stop by themselves."""
    cells = [
        Cell(noise=noise, pairs=pairs, covered=covered(noise, pairs, repetitions, seed))
        for noise in NOISES
        for pairs in PAIRS
    ]
    stopped = [covered_when_stopped(noise, wanted, repetitions, seed) for noise in STOPPING for wanted in WANTED]
    apart = [Cell(noise="normal", pairs=n, covered=covered_apart(n, repetitions, seed)) for n in PAIRS]
    return Coverage(
        seed=seed,
        repetitions=repetitions,
        truth=TRUTH,
        confidence=SETTINGS.confidence,
        cells=cells,
        stopped=stopped,
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
