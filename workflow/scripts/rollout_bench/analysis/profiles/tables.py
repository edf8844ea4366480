"""The breakdown of every profile as one table for programs."""

from __future__ import annotations

import pandas as pd

from rollout_bench.analysis.profiles.changes import changes
from rollout_bench.analysis.profiles.profiled import Part, Profiled
from rollout_bench.analysis.profiles.report import ProfileReport
from rollout_bench.records.profile import Phase

COLUMNS = (
    "platform",
    "model",
    "workload",
    "quant",
    "phase",
    "category",
    "role",
    "step_us",
    "us",
    "share",
    "traced_us",
    "calls",
    "speedup",
    "saved_us",
)
"""`us` of a part and `step_us` of all are without the profiler, `traced_us` with it; `share` is us / step_us. `calls`
are those of a step. `speedup` and `saved_us` compare `us` with the baseline's, empty where there is none."""


def profile_table(report: ProfileReport) -> pd.DataFrame:
    """A row for each part of each phase of each profile, also for parts that only its baseline has; see `COLUMNS`."""
    baselines = {own.place: baseline for own, baseline in report.pairs}
    rows = [
        row
        for each in report.profiled
        for phase in report.of(each)
        for row in _rows(report, each, phase, baselines.get(each.place))
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _rows(report: ProfileReport, own: Profiled, phase: Phase, baseline: Profiled | None) -> list[tuple[object, ...]]:
    breakdown = report.of(own)[phase]
    other = None if baseline is None else report.of(baseline).get(phase)
    compared = {} if other is None else {c.part: c for c in changes(other.scaled, breakdown.scaled)}
    parts: list[Part] = list(compared) or list(breakdown.scaled)
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
                *part,
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
