"""Simulate tables without a difference pass by pass: rounds of launches against interleaved blocks, under one noise."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from block_tables import ALPHA
from kept import Share, keep
from noise import Array
from numpy.typing import NDArray
from table_noise import AWAY_S, AWAY_SD, FURTHEST_SD, LAUNCH_S, PASS_SD, PASSES, in_turn

from rollout_bench.analysis.stats.blocks import contrasts, half_widths
from rollout_bench.analysis.timed.pairs import TRIMMED
from rollout_bench.contracts.fields import Strict

CONFIGURATIONS = 3
BLOCKS = (3, 4, 6)

ROUNDS = 12
"""Of a block."""

PASS_S, START_S = 1.2, 10.0
"""Seconds of a pass, and of one engine's start."""

LAUNCHES, INTERLEAVED = "rounds of launches", "interleaved blocks"

Passes = Callable[[np.random.Generator, int, int, int], Array]
"""(generator, tables, blocks m, passes n) -> log rates [tables, m, n, k] that know nothing of when a pass is made."""


class Judged(Strict):
    """Tables under one noise by one design: some false verdict, and intervals that hold the truth.

    `covered` is of the configuration whose intervals do so least often; `half_width` the median of the first
    configuration's, as a logarithm.
    """

    noise: str
    design: str
    blocks: int
    false: Share
    covered: Share
    half_width: float


class InterleavedTables(Strict):
    """Everything that was simulated."""

    seed: int
    tables: int
    configurations: int
    rounds: int
    passes: int
    judged: list[Judged]


def _white(rng: np.random.Generator, tables: int, m: int, n: int) -> Array:
    return PASS_SD * rng.normal(size=(tables, m, n, CONFIGURATIONS))


def _spikes(which: slice) -> Passes:
    """Return noise in which one pass in ten takes longer by 30 % on average (exponential)."""

    def passes(rng: np.random.Generator, tables: int, m: int, n: int) -> Array:
        values = _white(rng, tables, m, n)
        hit = rng.random(values.shape) < 0.1
        values[..., which] -= np.where(hit, np.log1p(0.3 * rng.exponential(size=values.shape)), 0.0)[..., which]
        return values

    return passes


def _normal_starts(sd: float) -> Passes:
    def passes(rng: np.random.Generator, tables: int, m: int, n: int) -> Array:
        return _white(rng, tables, m, n) + sd * rng.normal(size=(tables, m, 1, CONFIGURATIONS))

    return passes


ALL, ONE, BASELINE = slice(None), slice(1, 2), slice(0, 1)

NOISES: dict[str, Passes | None] = {
    "normal": _white,
    "normal, and starts differ by 3 %": _normal_starts(0.03),
    "the machine drifts as it was measured to": None,
    "one-sided spikes on all: a pass in ten takes 30 % longer on average": _spikes(ALL),
    "one-sided spikes on one quantization": _spikes(ONE),
    "one-sided spikes on the baseline": _spikes(BASELINE),
}


def drifting(rng: np.random.Generator, tables: int, at_s: Array) -> Array:
    """Log rates [tables, n] of passes at the times `at_s` [n], with the measured variogram."""
    away_s = np.abs(np.subtract.outer(at_s, at_s))
    apart = np.interp(np.log(np.maximum(away_s, AWAY_S[0])), np.log(AWAY_S), np.square(AWAY_SD))
    covariance = FURTHEST_SD**2 - np.where(away_s > 0, apart, 0.0)
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray(rng.normal(size=(tables, len(at_s))) @ (vectors * np.sqrt(np.maximum(values, 0.0))).T)


def by_launches(passes: Passes | None, rng: np.random.Generator, tables: int, m: int) -> Array:
    """Log ratios [tables, m, k - 1] of launches of `PASSES` passes, one after the other, in balanced order."""
    if passes is None:
        starts = LAUNCH_S * np.arange(m * CONFIGURATIONS)
        at_s = (starts[:, None] + PASS_S * np.arange(PASSES)).ravel()
        machine = drifting(rng, tables, at_s).reshape(tables, -1, PASSES).mean(axis=-1)
        values = in_turn(rng, machine, CONFIGURATIONS)
    else:
        values = -np.log(np.exp(-passes(rng, tables, m, PASSES)).mean(axis=2))
    return values[..., 1:] - values[..., :1]


def by_blocks(passes: Passes | None, rng: np.random.Generator, tables: int, m: int) -> Array:
    """Log ratios [tables, m, k - 1] of interleaved blocks: the trimmed mean over their rounds."""
    if passes is None:
        in_block = PASS_S * np.arange(ROUNDS * CONFIGURATIONS)
        each_s = CONFIGURATIONS * START_S + in_block[-1] + PASS_S
        at_s = (each_s * np.arange(m)[:, None] + in_block).ravel()
        values = in_turn(rng, drifting(rng, tables, at_s), CONFIGURATIONS).reshape(tables, m, ROUNDS, CONFIGURATIONS)
    else:
        values = passes(rng, tables, m, ROUNDS)
    cut = int(TRIMMED * ROUNDS)
    ratios = np.sort(values[..., 1:] - values[..., :1], axis=2)
    return np.asarray(ratios[:, :, cut : ROUNDS - cut].mean(axis=2))


DESIGNS = {LAUNCHES: by_launches, INTERLEAVED: by_blocks}


def judged(noise: str, design: str, ratios: Array) -> Judged:
    """Judge tables of log ratios [tables, m, k - 1], whose mean is made the truth that nothing differs."""
    centred = ratios - ratios.mean(axis=(0, 1))
    found = contrasts(centred)
    half = half_widths(found, ALPHA)
    outside = np.abs(found.log_ratio) > half
    return Judged(
        noise=noise,
        design=design,
        blocks=ratios.shape[1],
        false=_share(outside.any(axis=-1)),
        covered=min((_share(~each) for each in outside.T), key=lambda share: share.value),
        half_width=round(float(np.median(half[:, 0])), 5),
    )


def _share(hits: NDArray[np.bool_]) -> Share:
    return Share(count=int(hits.sum()), of=hits.size)


def simulate(tables: int, seed: int) -> InterleavedTables:
    """Every noise in both designs."""
    cells = [
        judged(noise, design, ratios(passes, np.random.default_rng([seed, number, m]), tables, m))
        for number, (noise, passes) in enumerate(NOISES.items())
        for design, ratios in DESIGNS.items()
        for m in BLOCKS
    ]
    return InterleavedTables(
        seed=seed, tables=tables, configurations=CONFIGURATIONS, rounds=ROUNDS, passes=PASSES, judged=cells
    )


def main() -> None:
    """Simulate, print a line for each cell, keep the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=int, default=20_000, help="of each cell (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the random numbers (default: %(default)s)")
    arguments = parser.parse_args()
    result = simulate(arguments.tables, arguments.seed)
    for cell in result.judged:
        print(
            f"{cell.noise}; {cell.design}, {cell.blocks}: false {100 * cell.false.value:.1f} %, "
            f"covered {100 * cell.covered.value:.1f} %, half width {100 * cell.half_width:.1f} %"
        )
    print(keep("interleaved_tables", result))


if __name__ == "__main__":
    main()
