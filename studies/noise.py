"""Noise that launches could have, as log ratios of pairs without any true difference."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Sides = Callable[[np.random.Generator, int, int], Array]
"""(generator, repetitions, pairs) -> log values [repetitions, pairs, 2] of both sides, with equal means."""

SD = 0.01
"""Standard deviation of one side's log values where nothing else is said. Coverage does not depend on it."""


def _normal(rng: np.random.Generator, repetitions: int, pairs: int) -> Array:
    return SD * rng.normal(size=(repetitions, pairs, 2))


def _delays(rng: np.random.Generator, repetitions: int, pairs: int) -> Array:
    return -SD * rng.exponential(size=(repetitions, pairs, 2))


def _delays_of_one(rng: np.random.Generator, repetitions: int, pairs: int) -> Array:
    sides = _normal(rng, repetitions, pairs)
    sides[..., 0] = SD * (1 - rng.exponential(size=(repetitions, pairs)))
    return sides


def _lognormal_of_one(rng: np.random.Generator, repetitions: int, pairs: int) -> Array:
    sides = _normal(rng, repetitions, pairs)
    delay = rng.lognormal(sigma=1.0, size=(repetitions, pairs))
    sides[..., 0] = SD * (np.exp(0.5) - delay)
    return sides


def _heavy(rng: np.random.Generator, repetitions: int, pairs: int) -> Array:
    return SD * rng.standard_t(3, size=(repetitions, pairs, 2))


def ar1(rng: np.random.Generator, repetitions: int, steps: int, correlation: float) -> Array:
    """Stationary AR(1) series [repetitions, steps] of standard deviation 1."""
    series = rng.normal(size=(repetitions, steps))
    for step in range(1, steps):
        series[:, step] = correlation * series[:, step - 1] + np.sqrt(1 - correlation**2) * series[:, step]
    return series


def _in_turn(rng: np.random.Generator, launches: Array, experiments: int) -> Array:
    """Return values of launches in the order they ran [repetitions, experiments x pairs].

    Those of two experiments, as sides.

    Each round has a random order of its own.
    """
    rounds = launches.reshape(len(launches), -1, experiments)
    places = np.argsort(rng.random(size=rounds.shape), axis=-1)[..., :2]
    return np.asarray(np.take_along_axis(rounds, places, axis=-1))


def _drift(correlation: float, experiments: int) -> Sides:
    def sides(rng: np.random.Generator, repetitions: int, pairs: int) -> Array:
        machine = _in_turn(rng, ar1(rng, repetitions, experiments * pairs, correlation), experiments)
        return _normal(rng, repetitions, pairs) + 3 * SD * machine

    return sides


def _private(correlation: float) -> Sides:
    def sides(rng: np.random.Generator, repetitions: int, pairs: int) -> Array:
        each = [ar1(rng, repetitions, pairs, correlation) for _ in range(2)]
        return SD * np.stack(each, axis=-1)

    return sides


def _trend(rng: np.random.Generator, repetitions: int, pairs: int) -> Array:
    slower = np.broadcast_to(np.arange(2.0 * pairs), (repetitions, 2 * pairs))
    return _normal(rng, repetitions, pairs) - 0.1 * SD * _in_turn(rng, slower, 2)


def _outliers(rng: np.random.Generator, repetitions: int, pairs: int) -> Array:
    slow = rng.random(size=(repetitions, pairs, 2)) < 1 / 20
    return np.asarray(_normal(rng, repetitions, pairs) + np.where(slow, np.log(0.9), 0.0))


NOISES: dict[str, Sides] = {
    "normal": _normal,
    "exponential delays on both sides": _delays,
    "exponential delays on one side, normal on the other": _delays_of_one,
    "lognormal delays (sigma 1) on one side, normal on the other": _lognormal_of_one,
    "heavy tails: Student's t with 3 degrees of freedom": _heavy,
    "the machine drifts: AR(1) of 0.9 from launch to launch, three times the noise": _drift(0.9, 2),
    "the same with 0.5, four experiments in a round": _drift(0.5, 4),
    "the same with 0.8, twelve experiments in a round": _drift(0.8, 12),
    "each side drifts by itself: AR(1) of 0.2 from pair to pair": _private(0.2),
    "each side drifts by itself: AR(1) of 0.5 from pair to pair": _private(0.5),
    "a trend: each launch slower than the one before by a tenth of the noise": _trend,
    "one launch in 20 is 10 % slow, noise 1 %": _outliers,
}


def log_ratios(noise: str, rng: np.random.Generator, repetitions: int, pairs: int) -> Array:
    """Log ratios [repetitions, pairs] under the noise of that name, whose truth is 0 (but for the trend's bias)."""
    sides = NOISES[noise](rng, repetitions, pairs)
    return np.asarray(sides[..., 0] - sides[..., 1])
