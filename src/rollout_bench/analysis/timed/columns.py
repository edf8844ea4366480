"""The summary table: one row per experiment, one column per number, in plain units and full precision."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from rollout_bench.analysis.stats.intervals import cv_percent, pooled_cv_percent
from rollout_bench.analysis.timed.balance import REPLICA_COLUMNS, replica_line, replicated
from rollout_bench.analysis.timed.comparison import Comparison
from rollout_bench.analysis.timed.latencies import LATENCY_COLUMNS, REQUEST_COLUMNS, Distribution, latency_line
from rollout_bench.analysis.timed.launches import LaunchMeasures
from rollout_bench.analysis.timed.rows import (
    COST_COLUMNS,
    OF_BLOCKS,
    OF_SERVERS,
    SERVICE_COLUMNS,
    Row,
    cost_line,
    load_line,
    metrics_line,
    service_line,
)
from rollout_bench.contracts.modes import mode_of
from rollout_bench.numbers.registry import ENERGY, NUMBERS

MAIN_METRIC = "output_tokens_per_s"
"""The metric whose comparison columns have no prefix."""


_ALL: dict[str, str] = {
    "mode": "string",
    "platform": "string",
    "model": "string",
    "workload": "string",
    "quant": "string",
    "setting": "string",
    "experiment": "string",
    "key": "string",
    "engine": "string",
    "launches_measured": "Int64",
    "launches_valid": "Int64",
    "launches_planned": "Int64",
    "launches_failed": "Int64",
    "launches_invalid": "Int64",
    "output_tokens_per_s": "Float64",
    "output_tokens_per_s_min": "Float64",
    "output_tokens_per_s_max": "Float64",
    "launch_cv_percent": "Float64",
    "iteration_cv_percent": "Float64",
    "speedup": "Float64",
    "speedup_low": "Float64",
    "speedup_high": "Float64",
    "speedup_of_totals": "Float64",
    "p_adjusted": "Float64",
    "pairs": "Int64",
    "baseline_launches": "Int64",
    "verdict": "string",
    **{name: "Float64" for name, number in NUMBERS.items() if not number.of and name != MAIN_METRIC},
    "kv_cache_dtype": "string",
    "kv_cache_bytes_per_token": "Int64",
    "kv_cache_tokens": "Int64",
    "kv_cache_sequences": "Int64",
    "workload_sequences": "Int64",
    "weights_bytes": "Int64",
    **COST_COLUMNS,
    **LATENCY_COLUMNS,
    "flags": "string",
}

SEQUENCE_COLUMNS = {name: "Float64" for name, number in NUMBERS.items() if number.of == "sequences"}
"""Columns of metrics that are included only if they are compared."""

IN_BLOCKS = ("speedup_of_totals", OF_BLOCKS)
"""Columns of comparisons by iteration, and of launches measured in blocks; for any metric."""

OF_PARTS = {
    name: "Float64" for name, number in NUMBERS.items() if not number.of and (number.mode or number.table == ENERGY)
}
"""Columns that only cycles, placements, or launches with known energy have."""

OF_CACHE = ("kv_cache_dtype", "kv_cache_bytes_per_token")
"""Columns from engines whose KV cache could be inspected."""

_OPTIONAL = (*IN_BLOCKS, OF_SERVERS, *OF_PARTS, *OF_CACHE)

COLUMNS = {name: kind for name, kind in _ALL.items() if name not in _OPTIONAL}
"""Columns of the table in order, with their types; summary.csv has the same names.

Columns from `speedup` to `verdict` are for `MAIN_METRIC`. Every other compared metric has the same columns at the end,
prefixed with `<metric>_`. If some experiment is online or has replicas, the columns of requests and of replicas
precede them, then the compared ones of `SEQUENCE_COLUMNS`. `IN_BLOCKS` and `OF_PARTS` are included if some row has
values.
"""


def table(rows: Sequence[Row], latencies: Sequence[Mapping[str, Distribution]] = ()) -> pd.DataFrame:
    """Return one line per row, in order, with `COLUMNS`; an unknown number is missing, never zero.

    `latencies` has the distributions of each row's sequences by measure; empty if the sequences were not read.
    """
    others = {
        f"{metric}_{column}": _ALL[column]
        for metric in dict.fromkeys(metric for row in rows for metric in row.comparisons)
        for column in _compared(Comparison())
        if metric != MAIN_METRIC
    }
    has_loads = any(mode_of(row.experiment.mode).has_loads for row in rows)
    compared = {metric for row in rows for metric in row.comparisons}
    of_sequences = {name: kind for name, kind in SEQUENCE_COLUMNS.items() if name in compared}
    of_requests = REQUEST_COLUMNS | SERVICE_COLUMNS if has_loads else {}
    of_replicas = {found.row.experiment.place: replica_line(found) for found in replicated(rows)}
    columns = _ALL | of_requests | (REPLICA_COLUMNS if of_replicas else {}) | of_sequences | others
    lines = [_line(row) | of_replicas.get(row.experiment.place, {}) for row in rows]
    columns = {
        name: kind
        for name, kind in columns.items()
        if not name.endswith(_OPTIONAL) or any(line.get(name) is not None for line in lines)
    }
    for line, found in zip(lines, latencies, strict=False):
        line |= latency_line(found)
    return pd.DataFrame(lines, columns=list(columns)).astype(columns)


def flag_texts(row: Row) -> list[str]:
    """Return the flags of a row's launches: code, `!` if it invalidates, and the number of launches with it."""
    counts: dict[tuple[str, bool], int] = {}
    for launch in row.launches:
        for flag in {(flag.code, flag.severity == "invalid") for flag in launch.flags}:
            counts[flag] = counts.get(flag, 0) + 1
    return [
        f"{code}{'!' if invalid else ''} {count}/{len(row.launches)}"
        for (code, invalid), count in sorted(counts.items())
    ]


def _line(row: Row) -> dict[str, object]:
    experiment = row.experiment
    compared = {
        column if metric == MAIN_METRIC else f"{metric}_{column}": value
        for metric, comparison in row.comparisons.items()
        for column, value in _compared(comparison).items()
    }
    return {
        "mode": experiment.mode,
        "platform": experiment.platform,
        **row.axes,
        "experiment": experiment.experiment,
        "key": experiment.key,
        "launches_measured": len(row.launches),
        "launches_valid": len(row.used),
        "launches_planned": experiment.planned,
        "launches_failed": len(experiment.failures),
        "launches_invalid": len(row.launches) - len(row.used),
        "flags": "; ".join(flag_texts(row)) or None,
        **compared,
        **(_asked(row) | load_line(row) if row.launches else {}),
        **(_measured(row) | cost_line(row) | service_line(row) if row.used else {}),
    }


def _compared(comparison: Comparison) -> dict[str, object]:
    nothing = comparison.is_baseline or comparison.verdict is None
    return {
        "speedup": comparison.speedup,
        "speedup_low": comparison.low,
        "speedup_high": comparison.high,
        "speedup_of_totals": comparison.of_totals,
        "p_adjusted": comparison.p_adjusted,
        "pairs": None if nothing or comparison.sides else len(comparison.pairs),
        "baseline_launches": None if nothing else comparison.launches_used[1],
        "verdict": "baseline" if comparison.is_baseline else comparison.verdict,
    }


def _asked(row: Row) -> dict[str, object]:
    spec = row.experiment.records[0].spec
    return {
        "engine": f"{spec.engine.name} {spec.engine.version}",
        "workload_sequences": spec.workload.prompts * spec.workload.samples_per_prompt,
    }


def _measured(row: Row) -> dict[str, object]:
    used = row.used
    rates = [launch.output_tokens_per_s for launch in used]
    return {
        **metrics_line(row),
        "output_tokens_per_s_min": min(rates),
        "output_tokens_per_s_max": max(rates),
        "launch_cv_percent": cv_percent(rates),
        "iteration_cv_percent": pooled_cv_percent([m.iteration_output_tokens_per_s for m in used]),
        **_cache(used),
        "kv_cache_tokens": _least(used, lambda launch: launch.kv_cache_tokens),
        "kv_cache_sequences": _least(used, lambda launch: launch.kv_cache_sequences),
        "weights_bytes": max(
            (launch.weights_bytes for launch in used if launch.weights_bytes is not None), default=None
        ),
    }


def _cache(used: Sequence[LaunchMeasures]) -> dict[str, object]:
    caches = [launch.kv_cache for launch in used if launch.kv_cache is not None]
    if not caches:
        return {}
    return {
        "kv_cache_dtype": ", ".join(sorted({name for cache in caches for name in cache.layers})),
        "kv_cache_bytes_per_token": max(cache.bytes_per_token for cache in caches),
    }


def _least(used: Sequence[LaunchMeasures], value: Callable[[LaunchMeasures], int | None]) -> int | None:
    known = [number for number in map(value, used) if number is not None]
    return min(known, default=None)
