"""The tables of offline experiments: throughput, anatomy, rates, costs of a launch, percentiles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rollout_bench.analysis.timed.rows import Row
from rollout_bench.contracts.modes import OFFLINE, Mode
from rollout_bench.numbers.registry import NUMBERS
from rollout_bench.report.headings import (
    COST,
    ENGINE,
    FLAGS,
    THROUGHPUT,
    TITLES,
    Column,
    Line,
    View,
    can_claim,
    latency_columns,
    speedup_columns,
    view,
)
from rollout_bench.report.parts import Findings, SummaryPart
from rollout_bench.report.prose import definitions
from rollout_bench.report.tables.anatomy_tables import anatomy_files, anatomy_sections, anatomy_views


def offline_part(findings: Findings) -> SummaryPart:
    """Return the tables of each platform, and the definitions of their columns.

    There is a column of flags only if there are flags, and a table of percentiles only if a sample is large enough.
    """
    tables = throughput_views(findings, OFFLINE)
    return SummaryPart(
        tables=tables,
        sections=anatomy_sections(findings, OFFLINE),
        definitions=definitions("Definitions", tables),
        files=anatomy_files(findings),
    )


def throughput_views(findings: Findings, mode: Mode) -> list[View]:
    """Return the throughput tables of each platform in `mode`, which must generate."""
    speedups = compared_columns(findings, mode, of_parts=False)
    return [
        view
        for title, lines, rows in findings.tables_of(mode)
        for view in _views(findings, title, lines, rows, speedups)
    ]


def compared_columns(findings: Findings, mode: Mode, *, of_parts: bool) -> list[Column]:
    """Return the speed-up columns of `mode`: in metrics that only its iterations have (`of_parts`), or in others."""
    settings = findings.collection.comparison
    columns = speedup_columns(settings, mode.name, typical=findings.typical(mode))
    metrics = settings.metrics_of(mode.name)
    return [
        column
        for metric, column in zip(metrics, columns, strict=True)
        if (NUMBERS[metric].mode == mode.name) == of_parts
    ]


def _views(
    findings: Findings, title: str, lines: Sequence[Line], rows: Sequence[Row], speedups: Sequence[Column]
) -> Iterator[View]:
    flags = (FLAGS,) if any(line["flags"] for line in lines) else ()
    yield view("Throughput: ", title, (*THROUGHPUT, *speedups, *flags), lines)
    yield from anatomy_views(findings, title, rows)
    yield view("Rates, start-up and memory: ", title, ENGINE, lines)
    yield view("What a launch costs: ", title, COST, lines)
    for measure, heading in TITLES.items():
        if any(can_claim(line, measure) for line in lines):
            yield view(f"{heading}: ", title, latency_columns(measure), lines)
