"""The table of replicas, where some experiment has several, and what its columns mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rollout_bench.analysis.replicas import Balance, Replicated, replicated
from rollout_bench.analysis.rows import Row
from rollout_bench.reporting.columns import Column, Line
from rollout_bench.reporting.notes import Section
from rollout_bench.reporting.numbers import MISSING, number
from rollout_bench.reporting.view import View, tables_of, view


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
