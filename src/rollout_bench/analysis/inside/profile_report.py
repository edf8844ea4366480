"""Profiles side by side: their phases, their flags, and a table of every part."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from rollout_bench.analysis.inside.breakdown import Breakdown, breakdowns, changes
from rollout_bench.analysis.inside.profiles import HOST_GAP, OTHER, LeftOut, ProfiledExperiment
from rollout_bench.analysis.stats.intervals import cv_percent, mean
from rollout_bench.contracts.inside import Phase
from rollout_bench.core.numbers import brief

UNKNOWN = 0.10
"""Largest share of a step for `other` without a flag."""

TRACE_OFF = 0.10
"""Largest relative difference between traced and timed steps without a flag."""

DEVICE_BOUND, HOST_BOUND = 0.2, 0.5
"""The device sets the pace if it waits for less than the first share of a step; the host, for more than the second."""

UNSTEADY_PERCENT = 15.0
"""Coefficient of variation, in percent, from which unprofiled steps are flagged as unsteady."""


@dataclass(frozen=True)
class ProfileFlag:
    """A flag: `code` for the column of flags, and a sentence with the observation."""

    code: str
    sentence: str


def doubts(breakdown: Breakdown) -> list[ProfileFlag]:
    """Return all flags of one phase of a profile."""
    return [*_other(breakdown), *_trace(breakdown), *_untimed(breakdown), *_unsteady_flag(breakdown)]


def agreement(breakdown: Breakdown) -> float | None:
    """Return the traced duration of a step over the timed duration of profiled steps; None if none was timed."""
    if breakdown.sample is None or not breakdown.sample.profiled_s:
        return None
    return breakdown.total_us / (1e6 * mean(breakdown.sample.profiled_s))


def bound(breakdown: Breakdown) -> str:
    """Return the bound of a step: device, host, or both."""
    waits = breakdown.share(HOST_GAP)
    return "device" if waits < DEVICE_BOUND else "host" if waits > HOST_BOUND else "both"


def _other(breakdown: Breakdown) -> Iterator[ProfileFlag]:
    share = breakdown.traced_share(OTHER)
    if share > UNKNOWN:
        yield ProfileFlag(
            "other",
            f"{100 * share:.0f} % of the step are operators that no rule knows, over {100 * UNKNOWN:.0f} %",
        )


def _trace(breakdown: Breakdown) -> Iterator[ProfileFlag]:
    ratio = agreement(breakdown)
    if ratio is not None and abs(math.log(ratio)) > math.log1p(TRACE_OFF):
        assert breakdown.sample is not None
        yield ProfileFlag(
            "trace_time",
            f"a step takes {brief(breakdown.total_us / 1000)} ms in the trace, "
            f"{brief(1000 * mean(breakdown.sample.profiled_s))} ms as it was timed: "
            + ("part of the step is outside the trace" if ratio < 1 else "the trace has more than these steps"),
        )


def _untimed(breakdown: Breakdown) -> Iterator[ProfileFlag]:
    if breakdown.sample is None or not breakdown.sample.unprofiled_s:
        yield ProfileFlag("untimed", "no step was timed without the profiler: its overhead is unknown and in all times")


def _unsteady_flag(breakdown: Breakdown) -> Iterator[ProfileFlag]:
    cv = cv_percent(breakdown.sample.unprofiled_s) if breakdown.sample else None
    if cv is not None and cv >= UNSTEADY_PERCENT:
        yield ProfileFlag("unsteady", f"steps vary by {cv:.0f} % without the profiler")


@dataclass(frozen=True, eq=False)
class ProfileReport:
    """`profiled` in order, the phases of each by its place, and each pair of a profile with its baseline.

    `left_out` are the experiments without a valid launch. `uncompared` are the experiments with a baseline but without
    a pair, because they or their baseline are left out, each with the reason.
    """

    profiled: tuple[ProfiledExperiment, ...]
    phases: Mapping[str, Mapping[Phase, Breakdown]]
    pairs: tuple[tuple[ProfiledExperiment, ProfiledExperiment], ...]
    left_out: tuple[LeftOut, ...] = ()
    uncompared: tuple[tuple[ProfiledExperiment | LeftOut, str], ...] = ()

    def of(self, profiled: ProfiledExperiment) -> Mapping[Phase, Breakdown]:
        """Return the phases of `profiled`."""
        return self.phases[profiled.place]


def profile_report(profiled: Sequence[ProfiledExperiment], left_out: Sequence[LeftOut] = ()) -> ProfileReport:
    """Return the analysis of `profiled`; a profile is compared only if its baseline is among them."""
    by_place = {each.place: each for each in profiled}
    without = {each.place: each for each in left_out}
    if len(by_place | without) < len(profiled) + len(left_out):
        raise ValueError("two profiles have the same place")
    phases = {each.place: breakdowns(each) for each in profiled}
    pairs = tuple((own, by_place[base]) for own in profiled if (base := own.baseline) in by_place and base != own.place)
    uncompared: list[tuple[ProfiledExperiment | LeftOut, str]] = [
        (own, f"{left.quant}: {left.reason}")
        for own in profiled
        if (left := without.get(own.baseline or "")) is not None
    ]
    uncompared += [(each, each.reason) for each in left_out if each.baseline in by_place | without]
    return ProfileReport(tuple(profiled), phases, pairs, tuple(left_out), tuple(uncompared))


COLUMNS = (
    "platform",
    "model",
    "workload",
    "quant",
    "phase",
    "category",
    "step_us",
    "us",
    "share",
    "traced_us",
    "calls",
    "speedup",
    "saved_us",
)
"""`us` of a part and `step_us` of the step are without the profiler, `traced_us` with it. `share` is us / step_us.
`calls` are per step. `speedup` and `saved_us` compare `us` with the baseline's; empty without a baseline."""


def profile_table(report: ProfileReport) -> pd.DataFrame:
    """Return a row for each part of each phase of each profile, including parts that only the baseline has.

    The columns are `COLUMNS`.
    """
    baselines = {own.place: baseline for own, baseline in report.pairs}
    rows = [
        row
        for each in report.profiled
        for phase in report.of(each)
        for row in _rows(report, each, phase, baselines.get(each.place))
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _rows(
    report: ProfileReport, own: ProfiledExperiment, phase: Phase, baseline: ProfiledExperiment | None
) -> list[tuple[object, ...]]:
    breakdown = report.of(own)[phase]
    other = None if baseline is None else report.of(baseline).get(phase)
    compared = {} if other is None else {c.part: c for c in changes(other.scaled, breakdown.scaled)}
    parts = list(compared) or list(breakdown.scaled)
    rows: list[tuple[object, ...]] = []
    for part in parts:
        change, us = compared.get(part), breakdown.scaled.get(part, 0.0)
        rows.append(
            (
                own.platform,
                own.model,
                own.workload,
                own.quant,
                phase,
                part,
                breakdown.step_us,
                us,
                us / breakdown.step_us if breakdown.step_us else None,
                breakdown.parts.get(part, 0.0),
                breakdown.calls.get(part, 0.0),
                change.speedup if change else None,
                change.saved if change else None,
            )
        )
    return rows
