"""The tables of rollouts: throughput of a step, and the work of its router and its engines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from rollout_bench.analysis.timed.balance import Routed, replicated, routed, routing_table
from rollout_bench.analysis.timed.rows import Row
from rollout_bench.contracts.modes import ROLLOUT
from rollout_bench.core.numbers import MISSING, number
from rollout_bench.report.headings import Column, Line, view
from rollout_bench.report.parts import Findings, SummaryPart
from rollout_bench.report.prose import definitions, sections
from rollout_bench.report.tables.anatomy_tables import anatomy_files, anatomy_sections
from rollout_bench.report.tables.offline_tables import throughput_views

MOST = 6
"""Maximum number of configurations with a sentence on their engines' shares of a step; the table has all."""


def _of(field: str, scale: float = 1.0) -> Callable[[Line], str]:
    def text(line: Line) -> str:
        value = None if line["routed"] is None else getattr(line["routed"], field)
        return MISSING if value is None else number(scale * value, 3)

    return text


ROUTER = (
    Column(
        "engines",
        "Number of engines that share a step.",
        lambda line: MISSING if line["routed"] is None else str(line["routed"].engines),
    ),
    Column("prompts/engine", "Distinct prompts per engine and step, on average.", _of("prompts_per_engine")),
    Column("cached %", "Share of the prompt tokens from prefix caches.", _of("cached_share", 100)),
    Column(
        "handing out ms",
        "Time from the beginning of a step until an engine had its last sequence.",
        _of("handing_out_s", 1e3),
    ),
    Column("decision us", "Time to choose an engine for a sequence, in microseconds.", _of("decide_s", 1e6)),
    Column(
        "late p99 ms", "99th percentile of the router's delay, in the worst iteration.", _of("loop_delay_p99_s", 1e3)
    ),
    Column("KV peak %", "Largest share of an engine's KV cache in use.", _of("kv_cache_peak", 100)),
    Column("preemptions", "Preemptions per step, over all engines.", _of("preemptions")),
)


def rollout_part(findings: Findings) -> SummaryPart:
    """Return the tables of throughput, router and engines, and rollout.csv."""
    tables, every = throughput_views(findings, ROLLOUT), []
    for title, lines, rows in findings.tables_of(ROLLOUT):
        shown = [line | {"routed": routed(row)} for line, row in zip(lines, rows, strict=True)]
        tables.append(view("Router: ", title, ROUTER, shown))
        every += rows
    files = {"rollout.csv": routing_table(every)} if every else {}
    return SummaryPart(
        answers=sections(
            ROLLOUT.name,
            shares=list(shares(every)),
            most=MOST,
        ),
        tables=tables,
        sections=anatomy_sections(findings, ROLLOUT),
        definitions=definitions("Definitions, rollouts", tables),
        files=files | anatomy_files(findings),
    )


def shares(rows: Sequence[Row]) -> Iterator[tuple[str, str, Routed, float | None]]:
    """Yield rows whose engines share steps: name, router, its statistics, and the imbalance.

    The imbalance is the slowest engine's time over the mean, minus 1; None if unknown.
    """
    imbalance = {one.row.experiment.place: one.imbalance for one in replicated(rows)}
    for row in rows:
        found = routed(row)
        if found is not None and found.engines > 1:
            yield row.name, _router_of(row), found, imbalance.get(row.experiment.place)


def _router_of(row: Row) -> str:
    spec = row.experiment.records[0].spec
    return "" if spec.rollout is None else spec.rollout.router or ""
