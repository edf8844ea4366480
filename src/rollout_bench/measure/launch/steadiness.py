"""Whether passes come from a steady state, and which of them are warm-up. Pure functions on elapsed times.

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
normal noise (simulated again in `tests/unit/measure/test_steadiness.py`):

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

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev
from typing import Literal

from rollout_bench.contracts.load import longest
from rollout_bench.contracts.record import Iteration
from rollout_bench.contracts.spec import WorkloadSpec


def comparable_s(workload: WorkloadSpec, iteration: Iteration) -> float:
    """Return the time of a pass in seconds, scaled to a common amount of output if lengths are drawn.

    Passes with different amounts of work differ in time without being unsteady. Arrivals at a fixed rate are not
    scaled, because the rate sets the time. A timed load is scaled, because its amount of work varies. A mode may
    judge by other seconds.
    """
    if iteration.judged_s is not None:
        return iteration.judged_s
    lengths = [workload.output_tokens, workload.prompt_tokens]
    fixed = all(isinstance(length, int) for length in lengths)
    at_a_rate = iteration.point is not None and iteration.point.request_rate != "inf"
    for_a_time = iteration.point is not None and iteration.point.duration_s is not None
    if (fixed and workload.dataset is None and not for_a_time) or at_a_rate or not iteration.output_tokens:
        return iteration.elapsed_s
    usual = longest(workload.output_tokens) * workload.prompts * workload.samples_per_prompt
    # the slowest replica sets the time of a step, so its output is the relevant amount of work
    slowest = max(iteration.replicas or [], key=lambda part: part.end_s, default=None)
    return iteration.elapsed_s * usual / max(1, (slowest or iteration).output_tokens)


def comparable_times(workload: WorkloadSpec, iterations: Sequence[Iteration]) -> list[float]:
    """Return `comparable_s` of passes, rescaled so that the sum equals their total elapsed time."""
    found = [comparable_s(workload, iteration) for iteration in iterations]
    took = [one.elapsed_s if one.judged_s is None else one.judged_s for one in iterations]
    scale = sum(took) / sum(found)
    return [scale * each for each in found]


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
    more, p = lead_in(elapsed_s)
    first, rest = elapsed_s[:more], elapsed_s[more:]
    if p < LEAD_IN_LEVEL and unsteady(rest) is None:
        excess = 100 * (fmean(first) / fmean(rest) - 1)
        sentence = (
            f"The first {_iterations(more)} of {len(elapsed_s)} measured took {excess:.1f} % longer than the rest, "
            f"{_times(first)} s against {_mean(rest)} s on average (p {_p(p)}, level {LEAD_IN_LEVEL})."
        )
        return Unsteadiness("warmup_too_short", sentence, more)
    evidence = unsteady(elapsed_s)
    return Unsteadiness("not_steady", evidence) if evidence is not None else None


def unsteady(elapsed_s: Sequence[float]) -> str | None:
    """Return a sentence with the evidence that `elapsed_s` [n > 0] is not steady; None if it is steady."""
    n = len(elapsed_s)
    if n < LEAST:
        return None
    middle = median(elapsed_s)
    far = max(range(n), key=lambda i: abs(elapsed_s[i] - middle))
    if abs(elapsed_s[far] - middle) > SCATTER * middle:
        return (
            f"Measured iteration {far + 1} of {n} took {elapsed_s[far]:.4g} s, {_off(elapsed_s[far], middle)} the "
            f"median of {middle:.4g} s (limit {100 * SCATTER:.0f} %)."
        )
    split, p = step(elapsed_s)
    before, after = fmean(elapsed_s[:split]), fmean(elapsed_s[split:])
    if p < LEVEL and abs(after - before) >= CHANGE * fmean(elapsed_s):
        return (
            f"After measured iteration {split} of {n} the time of an iteration went from {before:.4g} s to {after:.4g} "
            f"s on average, {_off(after, before)} (p {_p(p)}, level {LEVEL})."
        )
    slope, p = drift(elapsed_s)
    change = slope * (n - 1) / fmean(elapsed_s)
    if p < LEVEL and abs(change) >= CHANGE:
        return (
            f"The time of an iteration {'rose' if change > 0 else 'fell'} by {100 * abs(change):.1f} % over the {n} "
            f"measured ones (p {_p(p)}, level {LEVEL})."
        )
    return None


def lead_in(values: Sequence[float]) -> tuple[int, float]:
    """Return the number of first values that are most clearly slower than the rest, and its p-value.

    Return (0, 1) if no lead-in is found.
    """
    n = len(values)
    candidates = range(1, min(n // 2, n - LEAST + 1) + 1) if n >= LEAST else range(0)
    best, smallest = 0, 1.0
    for k in candidates:
        first, rest = values[:k], values[k:]
        if min(first) - fmean(rest) >= CHANGE * fmean(rest):
            t = _ratio(fmean(first) - fmean(rest), stdev(rest) * math.sqrt(1 / k + 1 / (n - k)))
            p = min(1.0, len(candidates) * two_sided_p(t, n - k - 1) / 2)
            if p < smallest:
                best, smallest = k, p
    return best, smallest


def step(values: Sequence[float]) -> tuple[int, float]:
    """Return the split with the largest t statistic (number of values before it), and its corrected p-value."""
    n = len(values)
    best, largest = 1, -1.0
    for split in range(1, n):
        left, right = values[:split], values[split:]
        difference = fmean(left) - fmean(right)
        t = _ratio(difference, math.sqrt((_squares(left) + _squares(right)) / (n - 2) * (1 / split + 1 / (n - split))))
        if t > largest:
            best, largest = split, t
    return best, min(1.0, (n - 1) * two_sided_p(largest, n - 2))


def drift(values: Sequence[float]) -> tuple[float, float]:
    """Return the slope per step of the least-squares line through `values` [n >= 3], and its two-sided p-value."""
    n = len(values)
    centre, mean = (n - 1) / 2, fmean(values)
    spread = n * (n * n - 1) / 12
    slope = sum((i - centre) * (value - mean) for i, value in enumerate(values)) / spread
    residual = sum((value - mean - slope * (i - centre)) ** 2 for i, value in enumerate(values))
    return slope, two_sided_p(_ratio(slope, math.sqrt(residual / (n - 2) / spread)), n - 2)


def two_sided_p(t: float, freedom: int) -> float:
    """Return P(|T| > |t|) of Student's t with `freedom` >= 1 degrees (Abramowitz and Stegun 26.7.3 and 26.7.4)."""
    if math.isinf(t):
        return 0.0
    angle = math.atan(abs(t) / math.sqrt(freedom))
    cosine, sine = math.cos(angle), math.sin(angle)
    if freedom % 2:
        term, total = cosine, 0.0
        for k in range(1, freedom - 1, 2):
            total += term
            term *= cosine * cosine * (k + 1) / (k + 2)
        inside = 2 / math.pi * (angle + sine * total)
    else:
        term, total = 1.0, 0.0
        for k in range(0, freedom - 1, 2):
            total += term
            term *= cosine * cosine * (k + 1) / (k + 2)
        inside = sine * total
    return max(0.0, 1 - inside)


def _squares(values: Sequence[float]) -> float:
    mean = fmean(values)
    return sum((value - mean) ** 2 for value in values)


def _ratio(difference: float, error: float) -> float:
    """Return |difference| / error; 0 if both are 0."""
    return abs(difference) / error if error else math.inf if difference else 0.0


def _off(value: float, reference: float) -> str:
    change = 100 * (value / reference - 1)
    return f"{abs(change):.1f} % {'above' if change > 0 else 'below'}"


def _p(p: float) -> str:
    return f"{p:.2g}" if p >= 0.0001 else "below 0.0001"


def _iterations(count: int) -> str:
    return "iteration" if count == 1 else f"{count} iterations"


def _times(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def _mean(values: Sequence[float]) -> str:
    return f"{fmean(values):.4g}"
