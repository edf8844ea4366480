"""The tables of rollouts: throughput of a step, and what its router and its engines did."""

from __future__ import annotations

from collections.abc import Callable

from rollout_bench.analysis.timed.balance import routed, routing_table
from rollout_bench.contracts.modes import ROLLOUT
from rollout_bench.core.numbers import MISSING, number
from rollout_bench.report.headings import Column, Line, view
from rollout_bench.report.parts import Findings, SummaryPart
from rollout_bench.report.prose import definitions
from rollout_bench.report.tables.anatomy_tables import anatomy_files, anatomy_sections
from rollout_bench.report.tables.offline_tables import throughput_views


def _of(field: str, scale: float = 1.0) -> Callable[[Line], str]:
    def text(line: Line) -> str:
        value = None if line["routed"] is None else getattr(line["routed"], field)
        return MISSING if value is None else number(scale * value, 3)

    return text


ROUTER = (
    Column(
        "engines",
        "Engines that share a step.",
        lambda line: MISSING if line["routed"] is None else str(line["routed"].engines),
    ),
    Column("prompts/engine", "Distinct prompts that an engine gets of a step, on average.", _of("prompts_per_engine")),
    Column("cached %", "Share of the prompt tokens that came from prefix caches.", _of("cached_share", 100)),
    Column(
        "handing out ms",
        "From a step's beginning until its last sequence was handed to an engine.",
        _of("handing_out_s", 1e3),
    ),
    Column("decision us", "Time that choosing an engine took for a sequence, in microseconds.", _of("decide_s", 1e6)),
    Column(
        "late p99 ms", "How late the router was, 99 % of the time; the worst iteration.", _of("loop_delay_p99_s", 1e3)
    ),
    Column("KV peak %", "Largest share of an engine's KV cache in use.", _of("kv_cache_peak", 100)),
    Column("preemptions", "Preemptions in a step, of all engines.", _of("preemptions")),
    Column(
        "wasted %",
        "Share of the generated tokens that the step did not need.",
        _of("wasted_share", 100),
        known="wasted",
    ),
    Column(
        "aborted",
        "Sequences that were under way when the step had enough, and aborted.",
        _of("aborted"),
        known="wasted",
    ),
    Column(
        "drain ms",
        "From then until the engines had nothing left to do; no part of the step.",
        _of("drain_s", 1e3),
        known="wasted",
    ),
)


def rollout_part(findings: Findings) -> SummaryPart:
    """Return the tables of throughput, one of what router and engines did, and rollout.csv."""
    tables = throughput_views(findings, ROLLOUT)
    every = []
    for title, lines, rows in findings.tables_of(ROLLOUT):
        found = [routed(row) for row in rows]
        shown = [
            line | {"routed": one, "wasted": one and one.wasted_share} for line, one in zip(lines, found, strict=True)
        ]
        tables.append(view("Router: ", title, ROUTER, shown))
        every += rows
    files = {"rollout.csv": routing_table(every)} if every else {}
    return SummaryPart(
        tables=tables,
        sections=anatomy_sections(findings, ROLLOUT),
        definitions=definitions("Definitions, rollouts", tables),
        files=files | anatomy_files(findings),
    )
