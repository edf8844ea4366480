"""Detect a lasting fall in a series: judge each value by the spread of the values before it. Pure functions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

REFERENCE = 1.0
"""Part of each standardised value that is no fall: the sum detects falls of twice as many standard deviations best."""

THRESHOLD = 3.4
"""Sum that signals a fall: independent normal values without one reach it within 200 values in 4.7 % of series."""


@dataclass(frozen=True)
class Fall:
    """The last fall of a series that lasts until its end.

    `first` is the place of the first value after it. `shift` is the mean of the values from there on minus the mean of
    those before, and `half_width` that of its interval.
    """

    first: int
    shift: float
    half_width: float


def fall_of(values: Sequence[float], least: float, confidence: float) -> Fall | None:
    """Return the fall of `values` [n] by more than `least` > 0; None if none was signalled, or it did not last.

    Each value is standardised by the mean and the standard deviation of those before it: without a change these are
    independent standard normal, whatever the spread (D. M. Hawkins, "Self-starting CUSUM charts for location and
    scale", The Statistician 36, 1987). Their cumulative sum, which never falls below 0, signals at `THRESHOLD`
    (E. S. Page, "Continuous inspection schemes", Biometrika 41, 1954). The fall is dated to the value with which the
    sum left 0. A signal counts only if the means before and after differ by more than `least`.
    """
    total, first, begin = 0.0, 1, None
    for place, standardised in enumerate(_standardised(values)):
        if total == 0.0:
            first = place
        total = max(0.0, total - standardised - REFERENCE)
        if total > THRESHOLD and _shift(values, first, place + 1) < -least:
            begin, total = first, 0.0
    if begin is None or (shift := _shift(values, begin, len(values))) >= -least:
        return None
    before, after = np.asarray(values[:begin]), np.asarray(values[begin:])
    freedom = len(values) - 2
    squares = float(((before - before.mean()) ** 2).sum() + ((after - after.mean()) ** 2).sum())
    error = math.sqrt(squares / freedom * (1 / before.size + 1 / after.size))
    half_width = float(special.stdtrit(freedom, (1 + confidence) / 2)) * error
    return Fall(begin, shift, half_width)


def _shift(values: Sequence[float], first: int, end: int) -> float:
    return float(np.mean(values[first:end]) - np.mean(values[:first])) if 0 < first < end else 0.0


def _standardised(values: Sequence[float]) -> list[float]:
    """Return each of `values` standardised by those before it; 0 for the first two, which have no spread before."""
    scores, mean, squares = [], 0.0, 0.0
    for count, value in enumerate(values):
        off = value - mean
        spread = math.sqrt(squares / (count - 1)) if count > 1 else 0.0
        t = math.sqrt(count / (count + 1)) * off / spread if spread else 0.0
        scores.append(float(special.ndtri(special.stdtr(count - 1, t))) if spread else 0.0)
        mean += off / (count + 1)
        squares += off * (value - mean)
    return scores
