"""Launching until an interval is narrow enough, without more false findings for it. Pure functions on arrays.

Whoever looks again after each launch and stops when he likes what he sees finds differences that are not there: a
95 % t interval that is looked at after each of 3 to 12 pairs misses the truth at some look in 18 % of cases, and even
one that only stops the run by its width misses it in up to 10 %, since pairs that are alike by luck stop it early.
So the intervals here are those of a group-sequential design, which hold at all looks together: at each look the t test
is held to one stricter level (a constant one: Pocock, Biometrika 64, 1977), chosen so that the chance of a p value
below it at any of the looks is 1 - confidence; its inverse is the repeated confidence interval (Jennison and Turnbull,
JRSS B 51, 1989). It holds whatever ends the run: width, limit, a key press, a launch that failed, or a
precision that was asked for after the result was seen. A fixed-width rule that is calibrated for its own stopping
alone would be 12 % narrower, and would lose that. A confidence sequence needs no limit, and would be wider.

The level has no closed form for t statistics of so few pairs; it comes from `SIMULATIONS` simulated series of
independent normal log ratios, always the same ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from rollout_bench.analysis.stats.intervals import NO_SPREAD

SIMULATIONS = 200_000
"""Series that levels are taken from: an overall level of 5 % is met within 0.15 percentage points (three standard
errors of the simulation)."""

RESOLVED = 2e-4
"""Overall chances below this are not read from so many simulations but bounded by Bonferroni's inequality."""

_CHUNK = 20_000


@dataclass(frozen=True)
class Looks:
    """The numbers of pairs after which a comparison may be looked at: `first` >= 2, `first` + 1, ..., `last`."""

    first: int
    last: int

    def overall(self, p_value: float) -> float:
        """Return the chance of a p value of at most `p_value` at one look or more where there is no difference.

        So it is the p value that holds for all looks together; of a t test on independent normal values. It lies
        between `p_value` and the number of looks times it.
        """
        if self.first == self.last:
            return p_value
        least = _least_p(self.first, self.last)
        bound = (self.last - self.first + 1) * p_value
        found = float(np.searchsorted(least, p_value, side="right")) / least.size
        return min(bound, max(found, RESOLVED), 1.0) if bound >= p_value else 1.0

    def each(self, level: float) -> float:
        """Return the level for every single look at which the chance of a false finding at any of them is `level`."""
        if self.first == self.last:
            return level
        least = _least_p(self.first, self.last)
        bonferroni = level / (self.last - self.first + 1)
        if level <= RESOLVED:
            return bonferroni
        return max(bonferroni, float(least[int(level * least.size) - 1]))


@dataclass(frozen=True)
class StoppingRule:
    """When a comparison has had enough pairs: from `min_pairs` on, once its interval reaches no further than
    `half_width` (a fraction: 0.01 for 1 %) off its ratio, and at `max_pairs` in any case.

    `confidence` is that of the interval over all looks together.
    """

    half_width: float
    min_pairs: int
    max_pairs: int
    confidence: float

    @property
    def looks(self) -> Looks:
        """After which numbers of pairs the rule looks."""
        return Looks(self.min_pairs, self.max_pairs)

    @property
    def level(self) -> float:
        """Confidence of the t interval at each look, taken as if it were the only one."""
        return 1 - self.looks.each(1 - self.confidence)

    def narrow(self, log_ratios: ArrayLike) -> NDArray[np.bool_]:
        """Return whether the interval of the first 1, 2, ..., n of `log_ratios` [..., n] is narrow enough: [..., n].

        Never for fewer than `min_pairs`, or where the ratios do not differ at all, as copies would.
        """
        d = np.asarray(log_ratios, dtype=float)
        deviation, n = _running_deviation(d)
        with np.errstate(invalid="ignore"):
            half = special.stdtrit(np.maximum(n - 1, 1), 0.5 + self.level / 2) * deviation / np.sqrt(n)
        return np.asarray((n >= self.min_pairs) & (deviation >= NO_SPREAD) & (half <= np.log1p(self.half_width)))

    def stopped(self, log_ratios: ArrayLike) -> NDArray[np.int_]:
        """After how many of `log_ratios` [..., n >= max_pairs], in their order, the rule stops: [...]."""
        narrow = self.narrow(np.asarray(log_ratios, dtype=float)[..., : self.max_pairs])
        narrow[..., -1] = True
        return np.asarray(narrow.argmax(axis=-1) + 1)


def _running_deviation(d: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int_]]:
    """Sample standard deviation of the first 1, 2, ..., n values along the last axis (0 for one), and these numbers."""
    n = np.arange(1, d.shape[-1] + 1)
    # Taken off first, so that the sums below lose no digits to a large common mean.
    centred = d - d[..., :1]
    squares = np.cumsum(centred**2, axis=-1) - np.cumsum(centred, axis=-1) ** 2 / n
    return np.sqrt(np.maximum(squares, 0) / np.maximum(n - 1, 1)), n


@lru_cache(maxsize=64)
def _least_p(first: int, last: int) -> NDArray[np.float64]:
    """Return the least p value over the looks of each simulated series without a difference, sorted: [SIMULATIONS]."""
    generator = np.random.default_rng(20130620)
    least = np.empty(SIMULATIONS)
    for start in range(0, SIMULATIONS, _CHUNK):
        d = generator.standard_normal((_CHUNK, last))
        deviation, n = _running_deviation(d)
        mean = np.cumsum(d, axis=-1) / n
        t = np.abs(mean[:, first - 1 :]) * np.sqrt(n[first - 1 :]) / deviation[:, first - 1 :]
        least[start : start + _CHUNK] = (2 * special.stdtr(n[first - 1 :] - 1, -t)).min(axis=-1)
    least.sort()
    return least
