"""The tables of rollouts: throughput of a step, and the work of its router and its engines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from rollout_bench.analysis.timed.balance import Routed, replicated, routed, routing_table
from rollout_bench.analysis.timed.rows import Row
from rollout_bench.contracts.axes import title_of
from rollout_bench.contracts.metrics import MetricName
from rollout_bench.contracts.modes import ROLLOUT
from rollout_bench.contracts.spec import Spec
from rollout_bench.core.mappings import grouped
from rollout_bench.core.numbers import MISSING, number
from rollout_bench.report.contrasts import Contrast, contrast, engine_settings
from rollout_bench.report.headings import Column, Line, view
from rollout_bench.report.parts import Findings, SummaryPart
from rollout_bench.report.prose import definitions, sections
from rollout_bench.report.tables.anatomy_tables import TIME, anatomy_files, anatomy_sections
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
            routers=list(contrasts(every)),
            routers_apart=list(never_contrasted(every)),
            shares=list(shares(every)),
            most=MOST,
        ),
        tables=tables,
        sections=anatomy_sections(findings, ROLLOUT),
        definitions=definitions("Definitions, rollouts", tables),
        files=files | anatomy_files(findings),
    )


def contrasted(rows: Sequence[Row]) -> list[list[Row]]:
    """Return groups of measured rows that use at least two routers and are otherwise equal."""
    groups = grouped((_but_router(row.experiment.records[0].spec), row) for row in rows if row.used)
    return [group for group in groups.values() if len({_router_of(row) for row in group}) > 1]


def contrasts(rows: Sequence[Row]) -> Iterator[Contrast]:
    """Yield the comparison of each of `rows` that differs from its baseline only in the router."""
    for row in rows:
        other = row.against.other
        if other is None or not other.records or not row.used:
            continue
        own, theirs = row.experiment.records[0].spec, other.records[0].spec
        if _but_router(own) != _but_router(theirs) or _router(own) == _router(theirs):
            continue
        metric = next((name for name in row.comparisons if _of_time(name, own)), next(iter(row.comparisons)))
        yield contrast(
            row,
            metric,
            group=_but_router(own),
            own=_router(own),
            other=_router(theirs),
            of_time=_of_time(metric, own),
            settings=tuple(engine_settings(row.experiment.records[0], other.records[0])),
        )


def never_contrasted(rows: Sequence[Row]) -> Iterator[tuple[str, list[str]]]:
    """Yield groups of `rows` that differ only in the router but are not compared: common name, and routers."""
    told = {contrast.group for contrast in contrasts(rows)}
    for group in contrasted(rows):
        if _but_router(group[0].experiment.records[0].spec) not in told:
            name = title_of(group[0].experiment, group[0].quant_label)
            yield name, list(dict.fromkeys(map(_router_of, group)))


def shares(rows: Sequence[Row]) -> Iterator[tuple[str, str, Routed, float | None]]:
    """Yield rows whose engines share steps: name, router, its statistics, and the imbalance.

    The imbalance is the slowest engine's time over the mean, minus 1; None if unknown.
    """
    imbalance = {one.row.experiment.place: one.imbalance for one in replicated(rows)}
    for row in rows:
        found = routed(row)
        if found is not None and found.engines > 1:
            yield row.name, _router_of(row), found, imbalance.get(row.experiment.place)


def _of_time(metric: MetricName, spec: Spec) -> bool:
    """Return whether a ratio in `metric` is a ratio of step times: all sequences have the requested length."""
    return metric == "step_time_s" or (metric in TIME and spec.workload.ignore_eos)


def _router_of(row: Row) -> str:
    return _router(row.experiment.records[0].spec)


def _router(spec: Spec) -> str:
    return "" if spec.rollout is None else spec.rollout.router or ""


def _but_router(spec: Spec) -> str:
    assert spec.rollout is not None, "a rollout has one"
    same = spec.model_copy(update={"setting": None, ROLLOUT.settings: spec.rollout.model_copy(update={"router": None})})
    return same.model_dump_json(warnings=False)
