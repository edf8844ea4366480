"""The operators that take most of a step, and those that no rule knows."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from rollout_bench.analysis.profiles.breakdown import Breakdown, device_rows
from rollout_bench.analysis.profiles.profiled import OTHER, Profiled

BY = ["name", "category", "role", "shapes"]


@dataclass(frozen=True)
class Operator:
    """All calls of one operator with the same shapes: `calls` and traced microseconds `us` of one step in the mean.

    `share` is that of the traced step, from 0 to 1; `shapes` those of its inputs as JSON, empty where not traced.
    """

    name: str
    category: str
    role: str
    shapes: str
    calls: float
    us: float
    share: float


def operators(profiled: Profiled, breakdown: Breakdown) -> list[Operator]:
    """The operators of a phase, those that take most first."""
    rows = device_rows(profiled.events[profiled.events["phase"] == breakdown.phase])
    return _grouped(rows, breakdown)


def unknown(profiled: Profiled, breakdown: Breakdown) -> list[Operator]:
    """The names in a phase that are of category `other`, whatever their shapes, those that take most first."""
    rows = device_rows(profiled.events[profiled.events["phase"] == breakdown.phase])
    return _grouped(rows[rows["category"] == OTHER].assign(role="", shapes=""), breakdown)


def _grouped(rows: pd.DataFrame, breakdown: Breakdown) -> list[Operator]:
    sums = rows.groupby(BY, observed=True)["self_us"].agg(["sum", "size"])
    total = breakdown.total_us
    found = []
    for (name, category, role, shapes), traced_us, size in zip(
        sums.index.to_list(), sums["sum"], sums["size"], strict=True
    ):
        us, calls = float(traced_us) / breakdown.steps, float(size) / breakdown.steps
        found.append(Operator(name, category, role, shapes, calls, us, us / total if total else 0.0))
    return sorted(found, key=lambda operator: (-operator.us, operator.name, operator.shapes))
