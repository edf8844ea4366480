"""The comparison of an experiment with its baseline: speed-up, its spread, and a verdict by a simple rule.

The rule is a stand-in: it asks for launches that do not overlap and knows no confidence level.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from rollout_bench.analysis.statistics import pair_ratios, ratio_of_means

Verdict = Literal["faster", "slower", "unclear"]

MARKS: dict[Verdict, str] = {"faster": "^", "slower": "v", "unclear": "~"}
"""How a verdict is written."""

MIN_LAUNCHES = 3
"""Launches that each side must have before a difference may be called clear."""

RELEVANT_DIFFERENCE = 0.01
"""A speed-up this close to 1 is never called a difference."""

RULE = (
    "^ faster, v slower: each side has at least three launches, every launch of the one is faster than every "
    "launch of the other, and the speed-up is at least 1 % off 1; ~ no clear difference otherwise. "
    "A simple rule: it states no confidence."
)
"""The rule, as the foot of a summary states it."""


@dataclass(frozen=True)
class Comparison:
    """How an experiment compares with its baseline.

    `speedup` is the ratio of mean throughputs over all valid launches (above 1: faster than the
    baseline); `pairs` the ratio of each launch index that both sides have. `is_baseline` marks the
    baseline itself. Where nothing can be compared, `verdict` is None and `reason` says why.
    """

    is_baseline: bool = False
    speedup: float | None = None
    pairs: Mapping[int, float] = field(default_factory=dict)
    launches: int = 0
    baseline_launches: int = 0
    verdict: Verdict | None = None
    reason: str = ""

    @property
    def spread(self) -> tuple[float, float] | None:
        """Smallest and largest ratio over the launch pairs; None without a pair."""
        return (min(self.pairs.values()), max(self.pairs.values())) if self.pairs else None


def compare(values: Mapping[int, float], baseline: Mapping[int, float]) -> Comparison:
    """Compares throughputs by launch index, higher being faster, with those of the baseline (same unit)."""
    speedup = ratio_of_means(list(values.values()), list(baseline.values()))
    if not values or not baseline:
        return Comparison(reason="not measured" if not values else "its baseline is not measured")
    if not speedup:
        return Comparison(reason="a throughput of zero")
    return Comparison(
        speedup=speedup,
        pairs=pair_ratios(values, baseline),
        launches=len(values),
        baseline_launches=len(baseline),
        verdict=verdict(list(values.values()), list(baseline.values())),
    )


def verdict(values: list[float], baseline: list[float]) -> Verdict:
    """The verdict on throughputs `values` [n] against `baseline` [m], higher being faster, as `RULE` says."""
    speedup = ratio_of_means(values, baseline)
    if not speedup or min(len(values), len(baseline)) < MIN_LAUNCHES:
        return "unclear"
    # The distance is taken as a ratio on both sides, so that swapping the sides mirrors the verdict.
    if max(speedup, 1 / speedup) < 1 + RELEVANT_DIFFERENCE:
        return "unclear"
    if min(values) > max(baseline):
        return "faster"
    if max(values) < min(baseline):
        return "slower"
    return "unclear"
