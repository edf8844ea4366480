"""Doubts about a profile: what its categories do not cover, and where trace and timed steps disagree."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from rollout_bench.analysis.profiles.breakdown import Breakdown
from rollout_bench.analysis.profiles.profiled import HOST_GAP, OTHER
from rollout_bench.analysis.statistics import cv_percent, mean

UNKNOWN = 0.10
"""Share of a step that `other` may take."""

TRACE_OFF = 0.10
"""Fraction by which the steps of a trace may differ from the same steps as they were timed."""

DEVICE_BOUND, HOST_BOUND = 0.2, 0.5
"""The device waits for less than this share of a step: it sets the pace. For more than the other: the host does."""

UNSTEADY_PERCENT = 15.0
"""Coefficient of variation of unprofiled steps from which on they are unsteady."""


@dataclass(frozen=True)
class Doubt:
    """One doubt: `code` for a column of flags, and a sentence with what was seen."""

    code: str
    sentence: str


def doubts(breakdown: Breakdown) -> list[Doubt]:
    """Everything that is doubtful about one phase of a profile."""
    return [*_other(breakdown), *_trace(breakdown), *_untimed(breakdown), *_unsteady(breakdown)]


def agreement(breakdown: Breakdown) -> float | None:
    """The duration of a step in the trace over that of a profiled step as it was timed; None where none was."""
    if breakdown.sample is None or not breakdown.sample.profiled_s:
        return None
    return breakdown.traced_us / (1e6 * mean(breakdown.sample.profiled_s))


def bound(breakdown: Breakdown) -> str:
    """What sets the pace of a step: device, host, or both."""
    waits = breakdown.share(HOST_GAP)
    return "device" if waits < DEVICE_BOUND else "host" if waits > HOST_BOUND else "both"


def _other(breakdown: Breakdown) -> Iterator[Doubt]:
    share = breakdown.traced_share(OTHER)
    if share > UNKNOWN:
        yield Doubt(
            "other",
            f"{100 * share:.0f} % of the step are operators that no rule knows, over {100 * UNKNOWN:.0f} %",
        )


def _trace(breakdown: Breakdown) -> Iterator[Doubt]:
    ratio = agreement(breakdown)
    if ratio is not None and abs(math.log(ratio)) > math.log1p(TRACE_OFF):
        assert breakdown.sample is not None
        yield Doubt(
            "trace_time",
            f"a step takes {breakdown.traced_us / 1000:.4g} ms in the trace, "
            f"{1000 * mean(breakdown.sample.profiled_s):.4g} ms as it was timed: "
            + ("part of the step is outside the trace" if ratio < 1 else "the trace has more than these steps"),
        )


def _untimed(breakdown: Breakdown) -> Iterator[Doubt]:
    if breakdown.sample is None or not breakdown.sample.unprofiled_s:
        yield Doubt("untimed", "no step was timed without the profiler: its overhead is unknown and in all times")


def _unsteady(breakdown: Breakdown) -> Iterator[Doubt]:
    cv = cv_percent(breakdown.sample.unprofiled_s) if breakdown.sample else None
    if cv is not None and cv >= UNSTEADY_PERCENT:
        yield Doubt("unsteady", f"steps vary by {cv:.0f} % without the profiler")
