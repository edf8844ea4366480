"""The tables of the summary as plain text cells, replicas included; the same for Markdown and for the terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from rollout_bench.analysis.timed.balance import Balance, Replicated, replicated
from rollout_bench.analysis.timed.latencies import Distribution
from rollout_bench.analysis.timed.mode_pairs import ModePair, Saturation
from rollout_bench.analysis.timed.rows import Row
from rollout_bench.contracts.modes import mode_of, named
from rollout_bench.core.numbers import MISSING, number
from rollout_bench.plan.config import ComparisonSettings
from rollout_bench.report.headings import (
    COST,
    ENGINE,
    FLAGS,
    THROUGHPUT,
    TITLES,
    Column,
    Line,
    View,
    latency_columns,
    speedup_columns,
    tables_of,
    view,
)
from rollout_bench.report.notes import Section
from rollout_bench.report.online_tables import modes_view


def _number(field: str) -> Callable[[Line], str]:
    return lambda line: MISSING if line["balance"] is None else number(getattr(line["balance"], field))


def _percent(share: float | None) -> str:
    return MISSING if share is None else number(100 * share, 2)


ALL = "all"
"""The line of all replicas of an experiment."""

COLUMNS = (
    Column(
        "replica",
        "Number of the replica: an engine on devices of its own, released together with the others before each "
        "iteration. all: the step that they make, from when the first begins until the slowest is done.",
        lambda line: line["replica"],
        words=True,
    ),
    Column(
        "own s",
        "Elapsed time of a measured iteration on this replica, in seconds; of all of them the step's. Mean over "
        "iterations, then over launches.",
        _number("elapsed_s"),
    ),
    Column(
        "output tokens",
        "Generated in an iteration; mean over iterations, then over launches.",
        _number("output_tokens"),
    ),
    Column(
        "own tok/s",
        "Output tokens by own s: what it generated while it ran.",
        _number("output_tokens_per_s"),
    ),
    Column(
        "slowest %",
        "Share of the iterations in which the step waited for this replica.",
        lambda line: MISSING if line["replica"] == ALL else _percent(line["balance"].slowest_share),
    ),
    Column(
        "idle %",
        "Share of the steps' time in which its devices waited for the slowest replica: 1 - its elapsed time / the "
        "step's. Of all of them the mean: what of the devices' time a step leaves unused.",
        lambda line: _percent(line["balance"] and line["balance"].idle_share),
    ),
    Column(
        "imbalance %",
        "Elapsed time of an iteration's slowest replica over the mean of all replicas', less 1; mean over iterations, "
        "then over launches.",
        lambda line: _percent(line["imbalance"]),
    ),
    Column(
        "start spread ms",
        "How long after the first replica the last one began, in the worst iteration.",
        lambda line: MISSING if line["spread_s"] is None else number(1e3 * line["spread_s"], 2),
    ),
)


def replica_views(rows: Sequence[Row]) -> list[View]:
    """A table for each platform, of which each experiment has a line for all of its replicas and one for each.

    An experiment without a valid launch has the first one alone, which says so.
    """
    found = {one.row.experiment.place: one for one in replicated(rows)}
    lines = [
        line for row in rows if row.experiment.has_replicas for line in _lines(row, found.get(row.experiment.place))
    ]
    return [view("Replicas: ", title, COLUMNS, group) for title, group in tables_of(lines)]


def replica_notes(rows: Sequence[Row]) -> list[Section]:
    """What the columns mean; nothing without a table."""
    if not any(row.experiment.has_replicas for row in rows):
        return []
    return [Section("Definitions, replicas", tuple(f"{column.header}: {column.definition}" for column in COLUMNS))]


def _lines(row: Row, one: Replicated | None) -> list[Line]:
    if one is None:
        return [_line(row, ALL, None)]
    whole = _line(row, ALL, one.whole) | {"imbalance": one.imbalance, "spread_s": one.start_spread_s}
    return [whole, *(_line(row, str(number), balance) for number, balance in enumerate(one.each))]


def _line(row: Row, replica: str, balance: Balance | None) -> Line:
    experiment = row.experiment
    return {
        "mode": experiment.mode,
        "platform": experiment.platform,
        "model": experiment.model,
        "workload": experiment.workload,
        "quant": row.quant_label,
        "empty_because": row.empty_because,
        "replica": replica,
        "balance": balance,
        "imbalance": None,
        "spread_s": None,
    }


@dataclass(frozen=True)
class Views:
    """All tables, and the footnotes that their cells refer to as [1], [2], ..."""

    tables: tuple[View, ...]
    footnotes: tuple[str, ...]


def views(
    frame: pd.DataFrame,
    rows: Sequence[Row],
    settings: ComparisonSettings,
    latencies: Sequence[Mapping[str, Distribution]] = (),
    *,
    apart: bool = False,
    found: Sequence[Saturation] = (),
    pairs: Sequence[ModePair] = (),
) -> Views:
    """The tables for each mode and platform in `frame`, which has a line per row, and that of `pairs` of modes.

    Throughput, engine, what a launch costs, and one for each measure that some row of `latencies` has. A model or
    workload that is the same in all lines of a table stands in its title instead, and flags have a column only where
    there are some. `apart`: the sides of the comparisons did not take turns. Online experiments have tables
    of their own; `found` says where sweeps saturate.
    """
    lines, footnotes = lines_of(frame, rows, latencies)
    tables: list[View] = []
    for title, group in tables_of(lines):
        own = [row for line, row in zip(lines, rows, strict=True) if any(line is each for each in group)]
        sweeps = [each for each in found if each.rows[0] in own]
        tables += named(mode_of(group[0]["mode"]).tables)(title, group, own, sweeps, settings, apart)
    if pairs:
        tables.append(modes_view(pairs))
    return Views(tuple(tables), footnotes)


def offline_views(
    title: str,
    lines: Sequence[Line],
    rows: Sequence[Row],
    found: Sequence[Saturation],
    settings: ComparisonSettings,
    apart: bool,
) -> list[View]:
    """The tables of one platform, from `lines`; `rows` and `found` are for modes that have loads."""
    flags = (FLAGS,) if any(line["flags"] for line in lines) else ()
    return [
        view("Throughput: ", title, (*THROUGHPUT, *speedup_columns(settings, apart=apart), *flags), lines),
        view("Rates, start-up and memory: ", title, ENGINE, lines),
        view("What a launch costs: ", title, COST, lines),
        *(
            view(f"{heading}: ", title, latency_columns(measure), lines)
            for measure, heading in TITLES.items()
            if any(measure in line["distributions"] for line in lines)
        ),
    ]


def lines_of(
    frame: pd.DataFrame, rows: Sequence[Row], latencies: Sequence[Mapping[str, Distribution]] = ()
) -> tuple[list[Line], tuple[str, ...]]:
    """What columns are made from, a line per row, and the footnotes that the lines refer to."""
    lines: list[Line] = [
        {str(field): None if pd.isna(value) else value for field, value in line.items()}
        for line in frame.astype(object).to_dict("records")
    ]
    footnotes: dict[str, int] = {}
    for place, (line, row) in enumerate(zip(lines, rows, strict=True)):
        line["distributions"] = latencies[place] if latencies else {}
        line["empty_because"] = row.empty_because
        reasons = {metric: comparison.reason for metric, comparison in row.comparisons.items()}
        line["comparisons"] = row.comparisons
        line["footnotes"] = {
            metric: footnotes.setdefault(reason, len(footnotes) + 1) if reason else None
            for metric, reason in reasons.items()
        }
    return lines, tuple(f"[{number}] {reason}." for reason, number in footnotes.items())
