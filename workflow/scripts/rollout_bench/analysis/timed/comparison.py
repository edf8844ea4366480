"""The comparison of an experiment with its baseline: speed-up, interval, verdict, and launches far from the others."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rollout_bench.analysis.stats.intervals import (
    NO_SPREAD,
    detectable_difference,
    holm,
    launches_needed,
    mean,
    ratio_interval,
    standard_deviation,
    strictest_level,
    welch_interval,
)
from rollout_bench.analysis.stats.power import minimal_detectable_difference, pairs_needed
from rollout_bench.analysis.stats.sequential import Looks
from rollout_bench.analysis.timed.launches import LaunchMeasures
from rollout_bench.contracts.record import Flag
from rollout_bench.plan.config import ComparisonSettings

Verdict = Literal["faster", "slower", "irrelevant", "undetected", "unknown"]

MARKS: dict[Verdict, str] = {"faster": "^", "slower": "v", "irrelevant": "~", "undetected": "~", "unknown": "?"}
"""How a verdict is written."""

MIN_PAIRS = 2
"""Pairs of launches that an interval needs; where sides are not paired, launches of each side."""

Values = Mapping[int, float]
"""A metric by launch index."""


@dataclass(frozen=True)
class Side:
    """One side of a comparison of launches that did not take turns.

    `value` is the geometric mean of its launches, in the metric's unit; `log_sd` the sample standard deviation of
    their logarithms, None for a single launch.
    """

    launches: int
    value: float
    log_sd: float | None


@dataclass(frozen=True)
class Comparison:
    """How an experiment compares with its baseline in one metric.

    `speedup` is the geometric mean of `pairs` (above 1: better than the baseline), the ratio of each launch
    index that both sides have; `low` and `high` are its interval, taken alone. Where the sides did not take turns
    there are no pairs but `sides`, its own and the baseline's, and `speedup` is the ratio of their values.
    `p_value` is that of "no difference", over all looks that may be taken, `p_adjusted` the same among all
    comparisons of the table.
    `minimal_detectable_difference` and `launches_for_relevant` say what could be found (a fraction) and how many
    launches of each side the relevant difference takes. `unpaired` and `baseline_unpaired` count launches that were
    not used since the other side has none of their index. `is_baseline` marks the baseline itself. Where nothing can
    be compared, `verdict` is None; there, and where it is unknown for another reason than too few launches, `reason`
    says why.
    """

    is_baseline: bool = False
    speedup: float | None = None
    low: float | None = None
    high: float | None = None
    log_sd: float | None = None
    p_value: float | None = None
    p_adjusted: float | None = None
    minimal_detectable_difference: float | None = None
    launches_for_relevant: int | None = None
    pairs: Values = field(default_factory=dict)
    sides: tuple[Side, Side] | None = None
    unpaired: int = 0
    baseline_unpaired: int = 0
    verdict: Verdict | None = None
    reason: str = ""

    @property
    def launches_used(self) -> tuple[int, int]:
        """How many launches of its own and of the baseline's took part."""
        if self.sides:
            return self.sides[0].launches, self.sides[1].launches
        return len(self.pairs), len(self.pairs)

    @property
    def launches_missing(self) -> int:
        """Launches that a verdict still lacks: of both sides, where they are paired, else of the smaller one."""
        return max(0, MIN_PAIRS - min(self.launches_used))


def compare(
    values: Values,
    baseline: Values,
    confidence: float,
    higher_is_better: bool = True,
    looks: Looks | None = None,
) -> Comparison:
    """Compare values by launch index with those of the baseline (same unit), as yet without a verdict.

    `looks` says after which numbers of pairs one may look and stop, None where their number does not depend on what
    was seen; the interval then holds at all these looks together. A difference is only called by `judge`. Values
    that are zero, negative or not finite make the whole comparison unknown, since what went wrong in one
    launch may have touched others.
    """
    wrong = _wrong(values, baseline)
    if wrong:
        return wrong
    both = sorted(values.keys() & baseline.keys())
    unpaired, baseline_unpaired = len(values) - len(both), len(baseline) - len(both)
    better = 1 if higher_is_better else -1
    logs = [better * (math.log(values[launch]) - math.log(baseline[launch])) for launch in both]
    comparison = Comparison(
        speedup=math.exp(mean(logs)) if logs else None,
        pairs={launch: math.exp(log) for launch, log in zip(both, logs, strict=True)},
        unpaired=unpaired,
        baseline_unpaired=baseline_unpaired,
        verdict="unknown",
        reason="" if both else "no launch has a partner of the same index in the baseline",
    )
    if len(both) < MIN_PAIRS:
        return comparison
    if standard_deviation(logs) < NO_SPREAD:
        return replace(comparison, reason="all pairs have the very same ratio, as copies of one launch would")
    if looks is not None:
        looks = Looks(min(looks.first, len(both)), looks.last)
    interval = ratio_interval(logs, confidence if looks is None else 1 - looks.each(1 - confidence))
    return replace(
        comparison,
        low=float(interval.low),
        high=float(interval.high),
        log_sd=float(interval.log_sd),
        p_value=float(interval.p_value) if looks is None else looks.overall(float(interval.p_value)),
    )


def compare_apart(values: Values, baseline: Values, confidence: float, higher_is_better: bool = True) -> Comparison:
    """As `compare`, for sides that did not take turns: all launches count, whatever their index."""
    wrong = _wrong(values, baseline)
    if wrong:
        return wrong
    logs, theirs = ([math.log(value) for _, value in sorted(side.items())] for side in (values, baseline))
    better = 1 if higher_is_better else -1
    comparison = Comparison(
        speedup=math.exp(better * (mean(logs) - mean(theirs))), sides=(_side(logs), _side(theirs)), verdict="unknown"
    )
    if comparison.launches_missing:
        return comparison
    for side, whose in ((logs, "it has"), (theirs, "its baseline has")):
        if standard_deviation(side) < NO_SPREAD:
            return replace(comparison, reason=f"{whose} the very same value in all launches, as copies of one would")
    interval = welch_interval([better * log for log in logs], [better * log for log in theirs], confidence)
    return replace(comparison, low=float(interval.low), high=float(interval.high), p_value=float(interval.p_value))


def _wrong(values: Values, baseline: Values) -> Comparison | None:
    """Say why nothing can be compared; None where it can."""
    if not values or not baseline:
        return Comparison(reason="not measured" if not values else "its baseline is not measured")
    for side, whose in ((values, "it has"), (baseline, "its baseline has")):
        wrong = [launch for launch, value in sorted(side.items()) if not (math.isfinite(value) and value > 0)]
        if wrong:
            reason = f"{whose} a launch ({wrong[0]}) whose measurement is zero or no number"
            return Comparison(verdict="unknown", reason=reason)
    return None


def _side(logs: Sequence[float]) -> Side:
    return Side(len(logs), math.exp(mean(logs)), standard_deviation(logs) if len(logs) > 1 else None)


def judge(family: Sequence[Comparison], settings: ComparisonSettings, looks: Looks | None = None) -> list[Comparison]:
    """Return the same comparisons with their verdicts, all of one metric in one table, in their order.

    `looks` as in `compare`. Those that have a p value share the chance of a false finding, by `holm`.
    """
    p_values = [comparison.p_value for comparison in family if comparison.p_value is not None]
    if not p_values:
        return list(family)
    adjusted = iter(holm(p_values))
    level = strictest_level(1 - settings.confidence, len(p_values))
    level = level if looks is None else looks.each(level)
    return [
        _judged(comparison, float(next(adjusted)), level, settings) if comparison.p_value is not None else comparison
        for comparison in family
    ]


def _judged(comparison: Comparison, p_adjusted: float, level: float, settings: ComparisonSettings) -> Comparison:
    assert comparison.speedup is not None
    detectable, needed = _sizes(comparison, level, settings)
    return replace(
        comparison,
        p_adjusted=p_adjusted,
        minimal_detectable_difference=detectable,
        launches_for_relevant=needed,
        verdict=verdict(comparison.speedup, p_adjusted, settings),
    )


def _sizes(comparison: Comparison, level: float, settings: ComparisonSettings) -> tuple[float, int | None]:
    """Return the difference found at `level`, and the launches of each side that the relevant difference takes."""
    relevant, power = settings.relevant_difference, settings.power
    if comparison.sides:
        own, other = comparison.sides
        assert own.log_sd is not None
        assert other.log_sd is not None
        found = detectable_difference(own.log_sd, own.launches, other.log_sd, other.launches, level, power)
        return found, launches_needed(own.log_sd, other.log_sd, relevant, level, power) if relevant else None
    assert comparison.log_sd is not None
    found = minimal_detectable_difference(comparison.log_sd, len(comparison.pairs), level, power)
    return found, pairs_needed(comparison.log_sd, relevant, level, power) if relevant else None


def verdict(speedup: float, p_adjusted: float, settings: ComparisonSettings) -> Verdict:
    """Return the verdict on a speed-up whose adjusted p value is known."""
    if not p_adjusted < 1 - settings.confidence:
        return "undetected"
    # The distance is taken as a ratio on both sides, so that swapping the sides mirrors the verdict.
    if max(speedup, 1 / speedup) < 1 + settings.relevant_difference:
        return "irrelevant"
    return "faster" if speedup > 1 else "slower"


LEAST = 4
"""Launches that it takes to tell: of three, any one may be the odd one."""

RELEVANT = 0.01
"""Least distance from the median that counts, of the median: less is no relevant difference between launches."""

CUTOFFS = {4: 6.9, 5: 8.0, 6: 5.5, 7: 5.8, 8: 4.9, 9: 5.1, 10: 4.6, 11: 4.7, 12: 4.4}
"""Launches -> modified z-score that in 5 % of experiments some launch exceeds by chance, where throughputs are
normal and independent; from 200,000 simulated experiments each (`tests/quick/test_outliers.py` does it again).
The usual 3.5 would mark a launch in every sixth experiment of four launches."""


def modified_z(values: ArrayLike) -> NDArray[np.float64]:
    """0.6745 (x - median) / MAD of each of `values` [n >= 1], without a unit.

    MAD is the median of |x - median|; 0.6745 makes it agree with the standard deviation of normal values (Iglewicz
    and Hoaglin, How to Detect and Handle Outliers, 1993). Where MAD is zero: 0 at the median, else infinite.
    """
    array = np.asarray(values, dtype=float)
    distance = array - np.median(array)
    mad = np.median(np.abs(distance))
    if mad > 0:
        return np.asarray(0.6745 * distance / mad)
    return np.asarray(np.where(distance == 0, 0.0, np.copysign(np.inf, distance)))


def cutoff(launches: int) -> float:
    """Return the modified z-score from which on one of `launches` >= 4 is an outlier."""
    return CUTOFFS.get(launches, CUTOFFS[max(CUTOFFS)])


def outliers(values: ArrayLike) -> list[int]:
    """Return positions of the outliers in `values` [n], in order; none where there are fewer than `LEAST` values."""
    array = np.asarray(values, dtype=float)
    if array.size < LEAST:
        return []
    middle = np.median(array)
    far = np.abs(modified_z(array)) > cutoff(array.size)
    return [int(i) for i in np.flatnonzero(far & (np.abs(array - middle) > RELEVANT * np.abs(middle)))]


def marked(launches: Sequence[LaunchMeasures]) -> tuple[LaunchMeasures, ...]:
    """Return `launches` of one experiment.

    The outliers in output tokens per second among the valid ones have a flag more.
    """
    valid = [i for i, launch in enumerate(launches) if launch.valid]
    rates = [launches[i].output_tokens_per_s for i in valid]
    found = list(launches)
    for position in outliers(rates):
        launch, middle = launches[valid[position]], float(np.median(rates))
        sentence = (
            f"{launch.output_tokens_per_s:.4g} output tokens/s, "
            f"{100 * (launch.output_tokens_per_s / middle - 1):+.1f} % off the median of {len(rates)} valid launches, "
            f"{middle:.4g} (modified z-score {modified_z(rates)[position]:.1f}, limit {cutoff(len(rates)):.1f})."
        )
        flag = Flag(code="outlier_launch", severity="warning", sentence=sentence)
        found[valid[position]] = replace(launch, flags=(*launch.flags, flag))
    return tuple(found)
