"""The comparison of an experiment with its baseline: speed-up, interval, and a verdict that holds when repeated."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from rollout_bench.analysis.multiple import holm, strictest_level
from rollout_bench.analysis.paired import NO_SPREAD, ratio_interval
from rollout_bench.analysis.power import minimal_detectable_difference, pairs_needed
from rollout_bench.analysis.sequential import Looks
from rollout_bench.analysis.statistics import mean, standard_deviation
from rollout_bench.plan.comparing import ComparisonSettings

Verdict = Literal["faster", "slower", "irrelevant", "undetected", "unknown"]

MARKS: dict[Verdict, str] = {"faster": "^", "slower": "v", "irrelevant": "~", "undetected": "~", "unknown": "?"}
"""How a verdict is written."""

MIN_PAIRS = 2
"""Pairs of launches that an interval needs."""

Values = Mapping[int, float]
"""A metric by launch index."""


@dataclass(frozen=True)
class Comparison:
    """How an experiment compares with its baseline in one metric.

    `speedup` is the geometric mean of `pairs` (above 1: better than the baseline), the ratio of each launch
    index that both sides have; `low` and `high` are its interval, taken alone. `p_value` is that of "no
    difference" over all looks that may be taken, `p_adjusted` the same among all comparisons of the table.
    `minimal_detectable_difference` and `pairs_for_relevant` say what could be found (a fraction) and how many pairs
    the relevant difference takes. `unpaired` and `baseline_unpaired` count launches that only one side has.
    `is_baseline` marks the baseline itself. Where nothing can be compared, `verdict` is None; there, and where
    it is unknown for another reason than too few pairs, `reason` says why.
    """

    is_baseline: bool = False
    speedup: float | None = None
    low: float | None = None
    high: float | None = None
    log_sd: float | None = None
    p_value: float | None = None
    p_adjusted: float | None = None
    minimal_detectable_difference: float | None = None
    pairs_for_relevant: int | None = None
    pairs: Values = field(default_factory=dict)
    unpaired: int = 0
    baseline_unpaired: int = 0
    verdict: Verdict | None = None
    reason: str = ""

    @property
    def pairs_missing(self) -> int:
        """Pairs that a verdict still lacks."""
        return max(0, MIN_PAIRS - len(self.pairs))


def compare(
    values: Values,
    baseline: Values,
    confidence: float,
    higher_is_better: bool = True,
    looks: Looks | None = None,
) -> Comparison:
    """Compares values by launch index with those of the baseline (same unit), as yet without a verdict.

    `looks` says after which numbers of pairs one may look and stop, None where their number does not depend on what
    was seen; the interval then holds at all these looks together. A difference is only called by `judge`. Values
    that are zero, negative or not finite make the whole comparison unknown, since what went wrong in one
    launch may have touched others.
    """
    if not values or not baseline:
        return Comparison(reason="not measured" if not values else "its baseline is not measured")
    for side, whose in ((values, "it has"), (baseline, "its baseline has")):
        wrong = [launch for launch, value in sorted(side.items()) if not (math.isfinite(value) and value > 0)]
        if wrong:
            reason = f"{whose} a launch ({wrong[0]}) whose measurement is zero or no number"
            return Comparison(verdict="unknown", reason=reason)
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


def judge(family: Sequence[Comparison], settings: ComparisonSettings, looks: Looks | None = None) -> list[Comparison]:
    """The same comparisons with their verdicts, all of one metric in one table, in their order.

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
    assert comparison.log_sd is not None
    sd, relevant = comparison.log_sd, settings.relevant_difference
    return replace(
        comparison,
        p_adjusted=p_adjusted,
        minimal_detectable_difference=minimal_detectable_difference(sd, len(comparison.pairs), level, settings.power),
        pairs_for_relevant=pairs_needed(sd, relevant, level, settings.power) if relevant else None,
        verdict=verdict(comparison.speedup, p_adjusted, settings),
    )


def verdict(speedup: float, p_adjusted: float, settings: ComparisonSettings) -> Verdict:
    """The verdict on a speed-up whose adjusted p value is known."""
    if not p_adjusted < 1 - settings.confidence:
        return "undetected"
    # The distance is taken as a ratio on both sides, so that swapping the sides mirrors the verdict.
    if max(speedup, 1 / speedup) < 1 + settings.relevant_difference:
        return "irrelevant"
    return "faster" if speedup > 1 else "slower"
