"""Noise that the launches of a whole table could have: log values [tables, blocks, configurations], means all equal.

The first configuration is the baseline. A launch that is not valid is NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from noise import SD, Array, ar1
from repeats import BASE, FIRST, SECOND, Launches

from rollout_bench.core.order import cycle_rounds, design_rows, williams_row

Tables = Callable[[np.random.Generator, int, int, int], Array]
"""(generator, tables, blocks m, configurations k) -> log values [tables, m, k]."""

ALL, ONE, BASELINE = slice(None), slice(1, 2), slice(0, 1)
"""Which configurations have a noise of their own."""

PASS_SD = 0.048
FURTHEST_SD = 0.091
AWAY_S = (3.0, 9.5, 12.5, 23.0, 84.0, 336.0, 1800.0)
AWAY_SD = (0.048, 0.058, 0.064, 0.070, 0.079, 0.087, FURTHEST_SD)
"""Variogram of single passes in `studies/results/launches.json`: root of half the mean squared difference of two
passes, by the seconds between them. A launch has four passes, and the next one starts `LAUNCH_S` later."""

LAUNCH_S = 14.0
PASSES = 4


def _normal(rng: np.random.Generator, tables: int, m: int, k: int) -> Array:
    return SD * rng.normal(size=(tables, m, k))


def _heavy(rng: np.random.Generator, tables: int, m: int, k: int) -> Array:
    return SD * rng.standard_t(3, size=(tables, m, k))


def _lognormal(which: slice) -> Tables:
    def noise(rng: np.random.Generator, tables: int, m: int, k: int) -> Array:
        values = _normal(rng, tables, m, k)
        values[..., which] = SD * (np.exp(0.5) - rng.lognormal(size=(tables, m, k)))[..., which]
        return values

    return noise


def _slow_starts(share: float, slower: float, which: slice, noise_share: float = 1.0) -> Tables:
    """Return noise in which a `share` of starts is `slower` (a fraction) for as long as the launch lives.

    The other noise is scaled by `noise_share`.
    """

    def noise(rng: np.random.Generator, tables: int, m: int, k: int) -> Array:
        slow = (rng.random(size=(tables, m, k)) < share).astype(float) - share
        values = noise_share * _normal(rng, tables, m, k)
        values[..., which] -= np.log1p(slower) * slow[..., which]
        return values

    return noise


def _wider(factor: float, which: slice) -> Tables:
    def noise(rng: np.random.Generator, tables: int, m: int, k: int) -> Array:
        values = _normal(rng, tables, m, k)
        values[..., which] *= factor
        return values

    return noise


def in_turn(rng: np.random.Generator, machine: Array, k: int) -> Array:
    """Return what the machine does from launch to launch [tables, m k] as [tables, m, k], in balanced orders."""
    rounds = machine.reshape(len(machine), -1, k)
    design = np.array([williams_row(k, row % design_rows(k)) for row in range(cycle_rounds(k))])
    cycles = -(-rounds.shape[1] // len(design))
    drawn = np.argsort(rng.random(size=(len(machine), cycles, len(design))), axis=-1).reshape(len(machine), -1)
    orders = design[drawn[:, : rounds.shape[1]]]
    names = np.argsort(rng.random(size=(len(machine), 1, k)), axis=-1)
    places = np.argsort(np.take_along_axis(np.broadcast_to(names, rounds.shape), orders, axis=-1), axis=-1)
    return np.asarray(np.take_along_axis(rounds, places, axis=-1))


def _trend(rng: np.random.Generator, tables: int, m: int, k: int) -> Array:
    slower = np.broadcast_to(-SD * np.arange(float(m * k)), (tables, m * k))
    return _normal(rng, tables, m, k) + in_turn(rng, slower, k)


def _drift(correlation: float) -> Tables:
    def noise(rng: np.random.Generator, tables: int, m: int, k: int) -> Array:
        return _normal(rng, tables, m, k) + 3 * SD * in_turn(rng, ar1(rng, tables, m * k, correlation), k)

    return noise


def _drift_as_measured(rng: np.random.Generator, tables: int, m: int, k: int) -> Array:
    away_s = LAUNCH_S * np.abs(np.subtract.outer(np.arange(m * k), np.arange(m * k)))
    apart = np.interp(np.log(np.maximum(away_s, AWAY_S[0])), np.log(AWAY_S), np.square(AWAY_SD))
    covariance = FURTHEST_SD**2 - apart + np.diag(np.full(m * k, PASS_SD**2 / PASSES))
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    return in_turn(rng, rng.normal(size=(tables, m * k)) @ root.T, k)


def _missing(share: float) -> Tables:
    def noise(rng: np.random.Generator, tables: int, m: int, k: int) -> Array:
        values = _normal(rng, tables, m, k)
        return np.where(rng.random(size=values.shape) < share, np.nan, values)

    return noise


TABLE_NOISES: dict[str, Tables] = {
    "normal": _normal,
    "heavy tails: Student's t with 3 degrees of freedom": _heavy,
    "lognormal delays (sigma 1) on all": _lognormal(ALL),
    "lognormal delays on one quantization": _lognormal(ONE),
    "lognormal delays on the baseline": _lognormal(BASELINE),
    "the machine drifts: AR(1) of 0.5 from launch to launch, three times the noise": _drift(0.5),
    "the same with 0.9": _drift(0.9),
    "the machine drifts as it was measured to": _drift_as_measured,
    "each launch is slower than the one before by as much as the noise": _trend,
    "two modes: 30 % of all starts are 5 % slow": _slow_starts(0.3, 0.05, ALL),
    "two modes: 30 % of starts of one quantization are 10 % slow": _slow_starts(0.3, 0.1, ONE),
    "two modes: 30 % of starts of the baseline are 10 % slow": _slow_starts(0.3, 0.1, BASELINE),
    "5 % of starts of one quantization are 30 % slow": _slow_starts(0.05, 0.3, ONE),
    "one quantization spreads twice as much": _wider(2.0, ONE),
    "one quantization spreads four times as much": _wider(4.0, ONE),
    "the baseline spreads four times as much": _wider(4.0, BASELINE),
    "normal, one launch in ten is not valid": _missing(0.1),
    "10 % of starts of the baseline are 30 % slow, and other noise is tiny": _slow_starts(0.1, 0.3, BASELINE, 0.1),
}
"""The truth is that nothing differs: each configuration has the mean of the others, slow starts and delays included."""

MEASURED = "measured: launches of the next section, less the mean of their side"


def measured_tables(launches: Launches, rng: np.random.Generator, tables: int, m: int, k: int) -> Array:
    """Tables of `m` rounds in a row and `k` sides at random, out of all that was measured.

    They overlap, so there are far fewer independent ones than `tables`.
    """
    columns = _sides(launches)
    begin = rng.integers(0, len(columns) - m + 1, size=tables)
    chosen = np.argsort(rng.random(size=(tables, columns.shape[1])), axis=-1)[:, :k]
    rounds = begin[:, None] + np.arange(m)
    return np.asarray(columns[rounds[:, :, None], chosen[:, None, :]])


def _sides(launches: Launches, names: Sequence[str] = (FIRST, SECOND)) -> Array:
    """Log values of step time [rounds, sides], NaN where a launch is missing, less the mean of each side."""
    workloads = list(launches.output_tokens) or [BASE]
    each = [launches.values("step_time_s", name, workload) for workload in workloads for name in names]
    rounds = 1 + max((index for values in each for index in values), default=-1)
    columns = np.array([[-np.log(values.get(index, np.nan)) for values in each] for index in range(rounds)])
    return np.asarray(columns - np.nanmean(columns, axis=0))
