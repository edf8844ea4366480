"""The tables of launches with several engines side by side, in any mode."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rollout_bench.analysis.timed.balance import Balance, Replicated, replica_table, replicated
from rollout_bench.analysis.timed.rows import Row
from rollout_bench.core.numbers import MISSING, number
from rollout_bench.report.headings import Column, Line, View, tables_of, view
from rollout_bench.report.parts import Findings, SummaryPart
from rollout_bench.report.prose import definitions


def _number(field: str) -> Callable[[Line], str]:
    return lambda line: MISSING if line["balance"] is None else number(getattr(line["balance"], field))


def _percent(share: float | None) -> str:
    return MISSING if share is None else number(100 * share, 2)


SHARED = ("prompts", "cached_share", "preemptions", "peak_running")
"""Fields that are known only if replicas share one load."""

ALL = "all"
"""Name of the line for all replicas of an experiment."""


def _of_shared(field: str, scale: float = 1.0) -> Callable[[Line], str]:
    def text(line: Line) -> str:
        value = line[field]
        return MISSING if value is None else number(scale * value, 3)

    return text


COLUMNS = (
    Column(
        "replica",
        "Number of the replica: an engine on its own devices, released together with the others before each "
        "iteration. all: the step of all replicas, from the start of the first until the end of the slowest.",
        lambda line: line["replica"],
        words=True,
    ),
    Column(
        "own s",
        "Elapsed time of a measured iteration on this replica, in seconds; for all, elapsed time of the step. "
        "Mean over iterations, then over launches.",
        _number("elapsed_s"),
    ),
    Column(
        "output tokens",
        "Output tokens per iteration; mean over iterations, then over launches.",
        _number("output_tokens"),
    ),
    Column(
        "own tok/s",
        "Output tokens / own s: the rate while the replica ran.",
        _number("output_tokens_per_s"),
    ),
    Column(
        "slowest %",
        "Share of the iterations in which the step waited for this replica.",
        lambda line: MISSING if line["replica"] == ALL else _percent(line["balance"].slowest_share),
    ),
    Column(
        "idle %",
        "Share of the step time in which the replica's devices waited for the slowest replica: 1 - own s / step "
        "time. For all, the mean: the unused share of the devices' time.",
        lambda line: _percent(line["balance"] and line["balance"].idle_share),
    ),
    Column(
        "imbalance %",
        "Elapsed time of an iteration's slowest replica / mean elapsed time of all replicas, minus 1; mean over "
        "iterations, then over launches.",
        lambda line: _percent(line["imbalance"]),
    ),
    Column(
        "start spread ms",
        "Time from the start of the first replica to the start of the last, in the worst iteration.",
        lambda line: MISSING if line["spread_s"] is None else number(1e3 * line["spread_s"], 2),
    ),
    Column("prompts", "Distinct prompts of the replica per iteration.", _of_shared("prompts"), known="prompts"),
    Column(
        "cached %",
        "Share of the replica's prompt tokens from its prefix cache.",
        _of_shared("cached_share", 100),
        known="cached_share",
    ),
    Column("preemptions", "Preemptions per iteration.", _of_shared("preemptions"), known="preemptions"),
    Column(
        "most at once",
        "Maximum number of sequences that the replica ran at once.",
        _of_shared("peak_running"),
        known="peak_running",
    ),
)


def replica_part(findings: Findings) -> SummaryPart:
    """Return a table for each platform, the definitions of its columns, and replicas.csv; empty without replicas.

    Each experiment has a line for all of its replicas and one for each. An experiment without a valid launch has only
    the first line, with the reason.
    """
    rows = [row for row in findings.rows if row.experiment.has_replicas]
    if not rows:
        return SummaryPart()
    tables = _views(rows)
    return SummaryPart(
        tables=tables,
        definitions=definitions("Definitions, replicas", tables),
        files={"replicas.csv": replica_table(findings.rows)},
    )


def _views(rows: Sequence[Row]) -> list[View]:
    found = {one.row.experiment.place: one for one in replicated(rows)}
    lines = [line for row in rows for line in _lines(row, found.get(row.experiment.place))]
    return [view("Replicas: ", title, COLUMNS, group) for title, group in tables_of(lines)]


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
        **row.axes,
        "empty_because": row.empty_because,
        "replica": replica,
        "balance": balance,
        "imbalance": None,
        "spread_s": None,
        **{name: balance and getattr(balance, name) for name in SHARED},
    }
