"""The summary table: one row per experiment, one column per number, in plain units and full precision."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain

import pandas as pd

from rollout_bench.analysis.timed.comparison import Comparison
from rollout_bench.analysis.timed.latencies import Distribution, latency_line
from rollout_bench.analysis.timed.rows import Row
from rollout_bench.numbers.registry import NUMBERS

MAIN_METRIC = "output_tokens_per_s"
"""The metric whose comparison columns have no prefix."""

_NAMES = ("mode", "platform", "model", "workload", "quant", "setting", "experiment", "key", "engine")
_WORDS = {*_NAMES, "request_rate", "kv_cache_dtype", "flags"}
_COUNTS = {
    "launches_measured", "launches_valid", "launches_planned", "launches_failed", "launches_invalid", "concurrency",
    "workload_sequences", "sequences",
}  # fmt: skip


def table(rows: Sequence[Row], latencies: Sequence[Mapping[str, Distribution]] = ()) -> pd.DataFrame:
    """Return one line per row, in order; an unknown number is missing, never zero. summary.csv has the same columns.

    They are names and counts; the comparison in `MAIN_METRIC`, from `speedup` to `verdict`; the compared numbers,
    and every other that a row has; percentiles; then the columns from `speedup` on for each other metric, with its name
    in front.
    `latencies` has the distributions of each row's sequences by measure; empty if the sequences were not read.
    """
    compared = dict.fromkeys(metric for row in rows for metric in row.comparisons)
    known = {MAIN_METRIC, *compared, *(name for row in rows for name in row.values)}
    metrics = [metric for metric in compared if metric != MAIN_METRIC]
    percentiles = [latency_line(percentile_cells) for percentile_cells in latencies] or [{} for _ in rows]
    lines = [
        _facts(row)
        | _comparison_cells(row, MAIN_METRIC, "")
        | {name: row.values.get(name) for name in NUMBERS if name in known}
        | dict(row.spread)
        | percentile_cells
        | {name: value for metric in metrics for name, value in _comparison_cells(row, metric, f"{metric}_").items()}
        | {"flags": "; ".join(flag_texts(row)) or None}
        for row, percentile_cells in zip(rows, percentiles, strict=True)
    ]
    columns = dict.fromkeys((*_NAMES, *(name for line in lines for name in line)))
    frame = pd.DataFrame(lines, columns=list(columns))
    return frame.astype({name: _kind(name) for name in columns})


def _kind(column: str) -> str:
    if column in _WORDS or column.endswith("verdict"):
        return "string"
    whole = column in _COUNTS or column.endswith(("pairs", "baseline_launches", "independent"))
    return "Int64" if whole else "Float64"


def shared_flags(rows: Iterable[Row]) -> frozenset[str]:
    """Return the codes of warnings that all launches of `rows` have, if there are several launches."""
    launches = [launch for row in rows for launch in row.launches]
    codes = [frozenset(flag.code for flag in launch.flags if flag.severity == "warning") for launch in launches]
    return frozenset.intersection(*codes) if len(codes) > 1 else frozenset()


def flag_texts(row: Row, without: Collection[str] = ()) -> list[str]:
    """Return the flags of a row's launches: code, `!` if it invalidates, and the number of launches with it.

    The codes in `without` are left out.
    """
    of_launches = (
        {(flag.code, flag.severity == "invalid") for flag in launch.flags if flag.code not in without}
        for launch in row.launches
    )
    counts = Counter(chain.from_iterable(of_launches))
    return [
        f"{code}{'!' if invalid else ''} {count}/{len(row.launches)}"
        for (code, invalid), count in sorted(counts.items())
    ]


def _facts(row: Row) -> dict[str, object]:
    experiment, records = row.experiment, row.experiment.records
    facts: dict[str, object] = {
        "mode": experiment.mode,
        "platform": experiment.platform,
        **row.axes,
        "experiment": experiment.experiment,
        "key": experiment.key,
        "engine": None,
        "launches_measured": len(row.launches),
        "launches_valid": len(row.used),
        "launches_planned": experiment.planned,
        "launches_failed": len(experiment.failures),
        "launches_invalid": len(row.launches) - len(row.used),
    }
    if records:
        spec, point = records[0].spec, experiment.point
        facts |= {
            "engine": f"{spec.engine.name} {spec.engine.version}",
            "workload_sequences": spec.workload.prompts * spec.workload.samples_per_prompt,
        }
        if point is not None:
            facts |= {"request_rate": str(point.request_rate), "concurrency": point.concurrency}
    return facts | ({"kv_cache_dtype": dtype} if (dtype := kv_cache_dtype(row)) else {})


def kv_cache_dtype(row: Row) -> str:
    """Return the data types of the KV caches of valid launches; empty if they are unknown."""
    caches = (record.engine.kv_cache for record in row.experiment.records if record.valid)
    return ", ".join(sorted({name for cache in caches if cache is not None for name in cache.layers}))


def _comparison_cells(row: Row, metric: str, prefix: str) -> dict[str, object]:
    comparison = row.comparisons.get(metric, Comparison())
    nothing = comparison.is_baseline or comparison.verdict is None
    cells = {
        "speedup": comparison.speedup,
        "speedup_low": comparison.low,
        "speedup_high": comparison.high,
        "speedup_of_totals": comparison.of_totals,
        "p_adjusted": comparison.p_adjusted,
        "pairs": None if nothing or comparison.sides else len(comparison.pairs),
        "baseline_launches": None if nothing else comparison.launches_used[1],
        "verdict": "baseline" if comparison.is_baseline else comparison.verdict,
    }
    return {f"{prefix}{name}": value for name, value in cells.items()}
