"""The table of replicas, where some experiment has several, and what its columns mean."""

from __future__ import annotations

from collections.abc import Sequence

from rollout_bench.analysis.replicas import Balance, Replicated
from rollout_bench.reporting.columns import Column, Line
from rollout_bench.reporting.notes import Section
from rollout_bench.reporting.numbers import MISSING, number
from rollout_bench.reporting.view import View, tables_of, view


def _percent(share: float) -> str:
    return number(100 * share, 2)


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
        lambda line: number(line["balance"].elapsed_s, 4),
    ),
    Column(
        "output tokens",
        "Generated in an iteration; mean over iterations, then over launches.",
        lambda line: number(line["balance"].output_tokens, 4),
    ),
    Column(
        "own tok/s",
        "Output tokens by own s: what it generated while it ran.",
        lambda line: number(line["balance"].output_tokens_per_s, 4),
    ),
    Column(
        "slowest %",
        "Share of the iterations in which the step waited for this replica.",
        lambda line: MISSING if line["imbalance"] is not None else _percent(line["balance"].slowest_share),
    ),
    Column(
        "idle %",
        "Share of the steps' time in which its devices waited for the slowest replica: 1 - its elapsed time / the "
        "step's. Of all of them the mean: what of the devices' time a step leaves unused.",
        lambda line: _percent(line["balance"].idle_share),
    ),
    Column(
        "imbalance %",
        "Elapsed time of an iteration's slowest replica over the mean of all replicas', less 1; mean over iterations, "
        "then over launches.",
        lambda line: MISSING if line["imbalance"] is None else _percent(line["imbalance"]),
    ),
    Column(
        "start spread ms",
        "How long after the first replica the last one began, in the worst iteration.",
        lambda line: MISSING if line["spread_s"] is None else number(1e3 * line["spread_s"], 2),
    ),
)


def replica_views(found: Sequence[Replicated]) -> list[View]:
    """A table for each platform, of which each experiment has a line for all of its replicas and one for each."""
    lines = [line for one in found for line in _lines(one)]
    return [view("Replicas: ", title, COLUMNS, group) for title, group in tables_of(lines)]


def replica_notes(found: Sequence[Replicated]) -> list[Section]:
    """What the columns mean; nothing without a table."""
    if not found:
        return []
    return [Section("Definitions, replicas", tuple(f"{column.header}: {column.definition}" for column in COLUMNS))]


def _lines(one: Replicated) -> list[Line]:
    return [
        _line(one, "all", one.whole, one.imbalance, one.start_spread_s),
        *(_line(one, str(number), balance, None, None) for number, balance in enumerate(one.each)),
    ]


def _line(one: Replicated, replica: str, balance: Balance, imbalance: float | None, spread_s: float | None) -> Line:
    experiment = one.row.experiment
    return {
        "mode": experiment.mode,
        "platform": experiment.platform,
        "model": experiment.model,
        "workload": experiment.workload,
        "quant": one.row.quant_label,
        "replica": replica,
        "balance": balance,
        "imbalance": imbalance,
        "spread_s": spread_s,
    }
