"""The tables of the summary as plain text cells, the same for Markdown and for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from rollout_bench.analysis.latencies import Distribution
from rollout_bench.analysis.modes import ModePair
from rollout_bench.analysis.rows import Row
from rollout_bench.analysis.saturation import Saturation
from rollout_bench.plan.comparing import ComparisonSettings
from rollout_bench.reporting.columns import ENGINE, FLAGS, THROUGHPUT, Line, speedup_columns
from rollout_bench.reporting.cost_columns import COST
from rollout_bench.reporting.latency_columns import TITLES, latency_columns
from rollout_bench.reporting.online_views import modes_view, online_views
from rollout_bench.reporting.view import View, tables_of, view


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
        if group[0]["mode"] == "online":
            own = [row for line, row in zip(lines, rows, strict=True) if any(line is each for each in group)]
            sweeps = [each for each in found if each.rows[0] in own]
            tables += online_views(title, group, own, sweeps, settings, apart)
            continue
        flags = (FLAGS,) if any(line["flags"] for line in group) else ()
        columns = (*THROUGHPUT, *speedup_columns(settings, group[0]["mode"], apart), *flags)
        tables += [
            view("Throughput: ", title, columns, group),
            view("Rates, start-up and memory: ", title, ENGINE, group),
            view("What a launch costs: ", title, COST, group),
            *(
                view(f"{heading}: ", title, latency_columns(measure), group)
                for measure, heading in TITLES.items()
                if any(measure in line["distributions"] for line in group)
            ),
        ]
    if pairs:
        tables.append(modes_view(pairs))
    return Views(tuple(tables), footnotes)


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
