"""The table of what is reached of the machine's limits, and what stands below it."""

from __future__ import annotations

from collections.abc import Sequence

from rollout_bench.analysis.reaches import Reach
from rollout_bench.records.limits import MachineLimits
from rollout_bench.reporting.columns import Column, Line
from rollout_bench.reporting.notes import Section
from rollout_bench.reporting.numbers import MISSING, number
from rollout_bench.reporting.view import View, view

_ORDER = ("pass", "prefill", "mixed", "decode", "step")

COLUMNS = (
    Column(
        "of one",
        "What is held against the limit: a whole pass of the workload, or a step of one phase.",
        lambda line: line["what"],
        words=True,
    ),
    Column(
        "takes ms",
        "How long it takes: a pass in the mean over launches, a step in the mean over those without the profiler.",
        lambda line: number(1000 * line["reach"].seconds, 4) if line["reach"].known else MISSING,
    ),
    Column(
        "bound ms",
        "The least time that the machine allows: the larger of bytes / memory bandwidth (weights and KV cache, each "
        "once a step) and operations / peak rate, summed over steps; docs/explanation/bounds.md has the formulas.",
        lambda line: number(1000 * line["reach"].bound_s, 4) if line["reach"].known else MISSING,
    ),
    Column(
        "x of the limit",
        "bound / takes: 1 would be all that the machine can do.",
        lambda line: number(line["reach"].share, 2) if line["reach"].known else MISSING,
    ),
    Column(
        "limited by",
        "What the bound comes from mostly: memory bandwidth or computing.",
        lambda line: line["reach"].limited_by or MISSING,
        words=True,
    ),
)


def reach_views(reaches: Sequence[Reach]) -> list[View]:
    """A table for each platform with a valid launch."""
    tables = []
    for platform in dict.fromkeys(reach.platform for reach in reaches if not reach.left_out):
        lines: list[Line] = [
            {
                "model": reach.model,
                "workload": reach.workload,
                "quant": reach.quant,
                "what": _what(reach),
                "reach": reach,
                "empty_because": reach.left_out,
            }
            for reach in sorted((r for r in reaches if r.platform == platform), key=lambda r: _ORDER.index(r.what))
        ]
        tables.append(view("How far from the machine's limit: ", platform, COLUMNS, lines))
    return tables


def _what(reach: Reach) -> str:
    if reach.what in ("pass", "step"):
        return f"{reach.mode} {reach.what}"
    return f"{reach.what} step"


def reach_notes(reaches: Sequence[Reach], limits: Sequence[MachineLimits]) -> list[Section]:
    """The limits, why some bounds are not known, and what the columns mean; nothing without a table."""
    if all(reach.left_out for reach in reaches):
        return []
    said = [_limits(each) for each in limits]
    reasons = {
        f"{reach.model} {reach.quant} {reach.workload}: no bound is known, since {reach.reason}."
        for reach in reaches
        if reach.reason
    }
    unknown = sorted({dtype for reach in reaches for dtype in reach.unknown})
    said += [f"The rate of {', '.join(unknown)} is not known here, so bounds lack its operations."] if unknown else []
    definitions = [f"{column.header}: {column.definition}" for column in COLUMNS]
    return [Section("The machine's limits", (*said, *sorted(reasons), *definitions))]


def _limits(limits: MachineLimits) -> str:
    rates = ", ".join(f"{dtype} {number(rate / 1e12, 3)} TFLOP/s" for dtype, rate in limits.flops_per_s.items())
    return (
        f"{limits.device_model}, as measured on {limits.measured_at[:10]}: "
        f"{number(limits.memory_bandwidth_bytes_per_s / 1e9, 3)} GB/s, {rates}."
    )
