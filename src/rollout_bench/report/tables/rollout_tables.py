"""The tables of rollouts: throughput of a step, entry points, and what its router and its engines did."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

from rollout_bench.analysis.timed.balance import Routed, replicated, routed, routing_table
from rollout_bench.analysis.timed.rows import Row
from rollout_bench.contracts.axes import title_of
from rollout_bench.contracts.metrics import MetricName
from rollout_bench.contracts.modes import ROLLOUT
from rollout_bench.contracts.spec import Spec, lengths_differ
from rollout_bench.core.mappings import grouped
from rollout_bench.core.numbers import MISSING, number
from rollout_bench.report.contrasts import Contrast, contrast, engine_settings
from rollout_bench.report.headings import Column, Line, metric_columns, speedup_columns, view
from rollout_bench.report.parts import Findings, SummaryPart
from rollout_bench.report.prose import definitions, sections
from rollout_bench.report.tables.anatomy_tables import TIME, anatomy_files, anatomy_sections
from rollout_bench.report.tables.offline_tables import throughput_views

THROUGH: Mapping[str, str] = {"async": "AsyncLLM", "llm": "LLM.generate()", "server": "vLLM's server"}
"""Entry -> what sentences call it."""

Key = Literal["entry", "router"]
"""Keys of `rollout` that configurations are contrasted by."""

MOST = 6
"""Configurations of which a sentence says how their engines shared a step; the table has all."""

ENTRY = Column(
    "entry",
    "How sequences reach an engine; lines that belong together differ in nothing else.",
    lambda line: line["entry"],
    words=True,
)


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
    """Return the tables of throughput, of entry points and of what router and engines did, and rollout.csv."""
    tables, every = throughput_views(findings, ROLLOUT), []
    settings, typical = findings.collection.comparison, findings.typical(ROLLOUT)
    entry_columns = (ENTRY, *metric_columns("throughput")[:1], *metric_columns("step"))
    entry_columns += speedup_columns(settings, typical=typical)
    for title, lines, rows in findings.tables_of(ROLLOUT):
        beside = {row.experiment.place for group in contrasted(rows, "entry") for row in group}
        entries = [
            line | {"entry": value_of(row, "entry")}
            for line, row in zip(lines, rows, strict=True)
            if row.experiment.place in beside
        ]
        tables += [view("Entry points: ", title, entry_columns, entries)] if entries else []
        found = [routed(row) for row in rows]
        shown = [
            line | {"routed": one, "wasted": one and one.wasted_share} for line, one in zip(lines, found, strict=True)
        ]
        tables.append(view("Router: ", title, ROUTER, shown))
        every += rows
    files = {"rollout.csv": routing_table(every)} if every else {}
    return SummaryPart(
        answers=sections(
            ROLLOUT.name,
            entries=list(contrasts(every, "entry")),
            entries_apart=list(never_contrasted(every, "entry")),
            routers=list(contrasts(every, "router")),
            routers_apart=list(never_contrasted(every, "router")),
            other_work=list(other_work(every)),
            shares=list(shares(every)),
            most=MOST,
        ),
        tables=tables,
        sections=anatomy_sections(findings, ROLLOUT),
        definitions=definitions("Definitions, rollouts", tables),
        files=files | anatomy_files(findings),
    )


def value_of(row: Row, key: Key) -> str:
    """Return what sentences call the value that a measured row has of `key`; empty where it has none."""
    value = _value(row.experiment.records[0].spec, key)
    return THROUGH.get(value, value)


def contrasted(rows: Sequence[Row], key: Key) -> list[list[Row]]:
    """Return the groups of measured rows that differ in `key` alone, and do."""
    groups = grouped((_but(row.experiment.records[0].spec, key), row) for row in rows if row.used)
    return [group for group in groups.values() if len({value_of(row, key) for row in group}) > 1]


def contrasts(rows: Sequence[Row], key: Key) -> Iterator[Contrast]:
    """Yield what is to be said of each of `rows` that differs from what it is compared with in `key` alone."""
    for row in rows:
        other = row.against.other
        if other is None or not other.records or not row.used:
            continue
        own, theirs = row.experiment.records[0].spec, other.records[0].spec
        if _but(own, key) != _but(theirs, key) or _value(own, key) == _value(theirs, key):
            continue
        metric = next((name for name in row.comparisons if _of_time(name, own)), next(iter(row.comparisons)))
        yield contrast(
            row,
            metric,
            group=_but(own, key),
            own=value_of(row, key),
            other=THROUGH.get(_value(theirs, key), _value(theirs, key)),
            of_time=_of_time(metric, own),
            settings=tuple(engine_settings(row.experiment.records[0], other.records[0])),
        )


def never_contrasted(rows: Sequence[Row], key: Key) -> Iterator[tuple[str, list[str]]]:
    """Yield what groups of `rows` have in common that differ in `key` alone and are not compared, and their values."""
    told = {contrast.group for contrast in contrasts(rows, key)}
    for group in contrasted(rows, key):
        if _but(group[0].experiment.records[0].spec, key) not in told:
            name = title_of(group[0].experiment, group[0].quant_label)
            yield name, list(dict.fromkeys(value_of(row, key) for row in group))


def other_work(rows: Sequence[Row]) -> Iterator[tuple[str, float, float]]:
    """Yield names of rows that keep other lengths than what they are compared with, and what both over-sample by."""
    for row in rows:
        other = row.against.other
        if other is None or not other.records or not row.used:
            continue
        specs = [one.records[0].spec for one in (row.experiment, other)]
        own, theirs = map(_over_sample, specs)
        if own != theirs and any(map(lengths_differ, specs)):
            yield row.name, own, theirs


def shares(rows: Sequence[Row]) -> Iterator[tuple[str, str, Routed, float | None]]:
    """Yield the names of rows whose engines share steps or waste tokens, their routers, and what these did.

    With it by how much longer than the mean the slowest engine took, as a share; None of one engine.
    """
    imbalance = {one.row.experiment.place: one.imbalance for one in replicated(rows)}
    for row in rows:
        found = routed(row)
        if found is not None and (found.engines > 1 or found.wasted_share is not None):
            yield row.name, value_of(row, "router"), found, imbalance.get(row.experiment.place)


def _of_time(metric: MetricName, spec: Spec) -> bool:
    """Return whether a ratio in `metric` is one of the times of steps: all keep as many tokens as were asked for."""
    as_asked = spec.workload.ignore_eos and not _over_sample(spec)
    return metric == "step_time_s" or (metric in TIME and as_asked)


def _over_sample(spec: Spec) -> float:
    return (spec.rollout and spec.rollout.over_sample) or 0.0


def _value(spec: Spec, key: Key) -> str:
    return "" if spec.rollout is None else getattr(spec.rollout, key) or ""


def _but(spec: Spec, key: Key) -> str:
    assert spec.rollout is not None, "a rollout has one"
    same = spec.model_copy(update={"setting": None, ROLLOUT.settings: spec.rollout.model_copy(update={key: None})})
    return same.model_dump_json(warnings=False)
