"""What a quant changes in a step: each part of it beside the baseline's. Pure functions on microseconds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from rollout_bench.analysis.profiles.breakdown import Breakdown, place
from rollout_bench.analysis.profiles.profiled import LINEAR, QUANTIZE, Part, Profiled
from rollout_bench.records.profile import LinearShape

SAME_BATCH = 0.05
"""Rows of linear layers may differ by this fraction before two profiles count as of different batches."""


@dataclass(frozen=True)
class Change:
    """One part in the baseline and in the quant, in the unit that they came in.

    `speedup` is the baseline's over its own, None where one side has none of it.
    """

    part: Part
    baseline: float
    own: float

    @property
    def speedup(self) -> float | None:
        """Above 1: it became faster."""
        return self.baseline / self.own if self.baseline > 0 and self.own > 0 else None

    @property
    def saved(self) -> float:
        """What it saves, negative where it costs."""
        return self.baseline - self.own


def changes(baseline: Mapping[Part, float], own: Mapping[Part, float]) -> list[Change]:
    """Every part that one of both has; what they save adds up to what the whole saves."""
    parts = sorted({*baseline, *own}, key=place)
    return [Change(part, baseline.get(part, 0.0), own.get(part, 0.0)) for part in parts]


def together(found: list[Change], categories: tuple[str, ...], name: Part) -> Change:
    """The parts of some categories as one."""
    own = [change for change in found if change.part[0] in categories]
    return Change(name, sum(change.baseline for change in own), sum(change.own for change in own))


def linear_with_quantize(found: list[Change]) -> Change:
    """The linear layers with what quantizing and dequantizing costs: the net of the quantization."""
    return together(found, (LINEAR, QUANTIZE), (LINEAR, "with quantize"))


def other_shapes(own: Profiled, baseline: Profiled) -> list[str]:
    """The roles whose layers are not the same in both, which no speed-up by role compares."""
    sides = [{linear.role: shape_of(linear) for linear in side.record.linears} for side in (own, baseline)]
    return [role for role in sorted({*sides[0], *sides[1]}) if sides[0].get(role) != sides[1].get(role)]


def shape_of(linear: LinearShape) -> tuple[int, int, int]:
    """K, N and how many."""
    return linear.in_features, linear.out_features, linear.layers


def batches_differ(own: Breakdown, baseline: Breakdown) -> tuple[float, float] | None:
    """The mean rows of the linear layers in both, or tokens of a step, where they differ by over `SAME_BATCH`."""
    sides = own.linear_tokens, baseline.linear_tokens
    if None in sides and own.sample and baseline.sample:
        sides = own.sample.tokens, baseline.sample.tokens
    if sides[0] and sides[1] and abs(math.log(sides[0] / sides[1])) > math.log1p(SAME_BATCH):
        return sides[0], sides[1]
    return None
