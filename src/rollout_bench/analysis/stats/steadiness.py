"""Judge whether passes come from a steady state, and which of them are warm-up. Pure functions on elapsed times.

Series of 4 to 20 iterations are too short for more than four simple tests of the elapsed times x[n] of the measured
iterations:

- lead-in: are the first k slower than the rest, for some k <= n/2 that leaves three or more? One-sided: the mean of
  x[:k] less that of x[k:], over the standard deviation of x[k:] times sqrt(1/k + 1/(n-k)), is Student's t with
  n - k - 1 degrees of freedom. The first k do not enter the noise estimate because warm-up times scatter more. The
  result is the smallest p-value over k, times the number of k (Bonferroni).
- step: is there a split k with mean(x[:k]) unlike mean(x[k:])? The largest two-sample t statistic over all splits
  (Hinkley, Biometrika 57, 1970), its p-value times the n - 1 splits (Bonferroni; Worsley, JASA 74, 1979, shows that
  this is close for short series).
- drift: is the slope of the least-squares line through x zero? Its t statistic with n - 2 degrees of freedom.
- scatter: is an iteration more than `SCATTER` off the median? This is a fixed limit, not a statistical test;
  ordinary noise does not reach it.

The first three flag a launch only if p is below the test's level and the change is at least `CHANGE` of the mean:
smaller changes cannot alter a verdict. If the iterations after a lead-in are steady, the lead-in belongs to the
warm-up. The lead-in has its own test with a larger level because it is the most common problem. A false alarm costs
only one more iteration. All tests depend only on ratios of times. Fewer than `LEAST` iterations are not tested.

Share of steady launches that are flagged, and in brackets flagged for a lead-in, among 20,000 series of independent
normal noise (simulated again in `tests/unit/analysis/test_steadiness.py`):

| noise (CV) | n = 4 | n = 5 | n = 8 | n = 20 |
|---|---|---|---|---|
| 1 % | 1.7 % (0.8 %) | 1.4 % (0.6 %) | 1.5 % (0.4 %) | 0.8 % (0.2 %) |
| 2 % | 3.2 % (1.7 %) | 3.1 % (1.4 %) | 2.5 % (0.9 %) | 1.9 % (0.5 %) |
| 5 % | 3.8 % (1.9 %) | 3.6 % (1.6 %) | 2.9 % (1.2 %) | 2.2 % (0.8 %) |

Detection rate for a slow first iteration, by its excess over the others:

| | n = 4 | n = 5 | n = 8 | n = 20 |
|---|---|---|---|---|
| 10 %, at 1 % noise | 95 % | 96 % | 98 % | 99 % |
| 5 %, at 1 % noise | 54 % | 58 % | 76 % | 89 % |
| 10 %, at 2 % noise | 54 % | 57 % | 73 % | 86 % |
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import special

Times = npt.NDArray[np.float64]

LEAST = 4
"""Minimum number of iterations for any test."""

LEAD_IN_LEVEL = 0.02
"""Level of the test for a lead-in."""

LEVEL = 0.01
"""Level of the step and drift tests. With the lead-in test, at most 4 % of steady launches are flagged."""

CHANGE = 0.02
"""Smallest change that counts, as a share of the mean. Such a change can shift a launch's mean by half of it, 1 %.
1 % is also the smallest difference that a verdict treats as relevant."""

SCATTER = 0.2
"""Largest distance of one iteration from the median in a steady launch, as a share of the median."""


@dataclass(frozen=True)
class Unsteadiness:
    """The reason why a launch is not in a steady state.

    Args:
        code: `warmup_too_short`: the launch is steady after the first `more` iterations; `not_steady`: it never is.
        sentence: the evidence, with its numbers.
        more: number of measured iterations that belong to the warm-up; 0 for `not_steady`.
    """

    code: Literal["warmup_too_short", "not_steady"]
    sentence: str
    more: int = 0


def judge(elapsed_s: Sequence[float]) -> Unsteadiness | None:
    """Return the evidence against a steady state of the measured iterations `elapsed_s` [n > 0], in seconds.

    Return None without such evidence, or with fewer than `LEAST` iterations.
    """
    times = np.array(elapsed_s)
    more, p = slow_beginning(times)
    first, rest = times[:more], times[more:]
    if p < LEAD_IN_LEVEL and unsteady(rest) is None:
        sentence = (
            f"The first {'iteration' if more == 1 else f'{more} iterations'} of {len(times)} measured took "
            f"{100 * (first.mean() / rest.mean() - 1):.1f} "
            f"% longer than the rest, {_listed(first)} s against {rest.mean():.4g} s on average "
            f"(p {_p(p)}, level {LEAD_IN_LEVEL}). It would take {more} more of warm-up."
        )
        return Unsteadiness("warmup_too_short", sentence, more)
    evidence = unsteady(times)
    return Unsteadiness("not_steady", evidence) if evidence is not None else None


def unsteady(times: Times) -> str | None:
    """Return a sentence with the evidence that `times` [n > 0] are not steady; None if they are."""
    n = len(times)
    if n < LEAST:
        return None
    middle = float(np.median(times))
    far = int(np.argmax(np.abs(times - middle)))
    if abs(times[far] - middle) > SCATTER * middle:
        return (
            f"Measured iteration {far + 1} of {n} took {times[far]:.4g} s, {_off(times[far], middle)} the median of "
            f"{middle:.4g} s (limit {100 * SCATTER:.0f} %)."
        )
    split, p = step(times)
    before, after = float(times[:split].mean()), float(times[split:].mean())
    if p < LEVEL and abs(after - before) >= CHANGE * times.mean():
        return (
            f"After measured iteration {split} of {n} the time of an iteration went from {before:.4g} s to {after:.4g} "
            f"s on average, {_off(after, before)} (p {_p(p)}, level {LEVEL})."
        )
    slope, p = drift(times)
    change = slope * (n - 1) / times.mean()
    if p < LEVEL and abs(change) >= CHANGE:
        return (
            f"The time of an iteration {'rose' if change > 0 else 'fell'} by {100 * abs(change):.1f} % over the {n} "
            f"measured ones (p {_p(p)}, level {LEVEL})."
        )
    return None


def slow_beginning(times: Times) -> tuple[int, float]:
    """Return the number of first values that are most clearly slower than the rest, and its p-value.

    Return (0, 1) if no lead-in is found.
    """
    n = len(times)
    candidates = range(1, min(n // 2, n - LEAST + 1) + 1) if n >= LEAST else range(0)
    best, smallest = 0, 1.0
    for k in candidates:
        first, rest = times[:k], times[k:]
        if first.min() - rest.mean() >= CHANGE * rest.mean():
            t = _ratio(first.mean() - rest.mean(), rest.std(ddof=1) * math.sqrt(1 / k + 1 / (n - k)))
            p = min(1.0, len(candidates) * float(special.stdtr(n - k - 1, -t)))
            if p < smallest:
                best, smallest = k, p
    return best, smallest


def step(times: Times) -> tuple[int, float]:
    """Return the split with the largest t statistic (number of values before it), and its corrected p-value."""
    n = len(times)
    statistics = []
    for split in range(1, n):
        left, right = times[:split], times[split:]
        within = (len(left) * left.var() + len(right) * right.var()) / (n - 2)
        statistics.append(_ratio(left.mean() - right.mean(), math.sqrt(within * (1 / split + 1 / (n - split)))))
    best = int(np.argmax(statistics))
    return best + 1, min(1.0, (n - 1) * 2 * float(special.stdtr(n - 2, -statistics[best])))


def drift(times: Times) -> tuple[float, float]:
    """Return the slope per iteration of the least-squares line through `times` [n >= 3], and its two-sided p-value."""
    n = len(times)
    places = np.arange(n) - (n - 1) / 2
    spread = float(places @ places)
    slope = float(places @ times) / spread
    residual = float(np.square(times - times.mean() - slope * places).sum())
    return slope, 2 * float(special.stdtr(n - 2, -_ratio(slope, math.sqrt(residual / (n - 2) / spread))))


def _ratio(difference: float, error: float) -> float:
    """Return |difference| / error; 0 if both are 0."""
    return abs(difference) / error if error else math.inf if difference else 0.0


def _off(value: float, reference: float) -> str:
    change = 100 * (value / reference - 1)
    return f"{abs(change):.1f} % {'above' if change > 0 else 'below'}"


def _p(p: float) -> str:
    return f"{p:.2g}" if p >= 0.0001 else "below 0.0001"


def _listed(values: Times) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
