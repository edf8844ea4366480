"""Percentiles of the sequences of an experiment: those that they can claim, and what the others lack."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from rollout_bench.analysis.percentiles import Array, percentile_interval, samples_needed
from rollout_bench.analysis.sequences import MEASURES, PooledSequences

PERCENTILES = (50, 90, 95, 97, 99)
"""Those that are told, rising."""

LAST = PERCENTILES[-1]


@dataclass(frozen=True)
class Claimed:
    """A percentile with its interval, in the unit of the measure."""

    percentile: int
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Distribution:
    """One measure of `sequences` sequences, of which `distinct` values differ. `claimed` has what can be claimed."""

    sequences: int
    distinct: int
    claimed: Mapping[int, Claimed]


def distributions(pooled: PooledSequences) -> dict[str, Distribution]:
    """The distribution of each measure that `pooled` has."""
    return {measure: distribution(values) for measure, values in pooled.values.items()}


def distribution(values: Array) -> Distribution:
    """The distribution of `values` [n >= 1]."""
    ordered = np.sort(values)  # so that sorting it again for each percentile costs next to nothing
    claimed = {}
    for percentile in claimable(len(ordered)):
        found = percentile_interval(ordered, percentile / 100)
        claimed[percentile] = Claimed(percentile, float(found.estimate), float(found.low), float(found.high))
    return Distribution(len(ordered), len(np.unique(ordered)), claimed)


def claimable(samples: int) -> list[int]:
    """Those of `PERCENTILES` that so many independent values can claim."""
    return [percentile for percentile in PERCENTILES if samples >= samples_needed(percentile / 100)]


def more_for(percentile: int, sequences: int) -> int:
    """Sequences that `percentile` still lacks."""
    return max(0, samples_needed(percentile / 100) - sequences)


def _columns() -> dict[str, str]:
    columns = {"sequences": "Int64", f"sequences_to_claim_p{LAST}": "Int64"}
    for measure in MEASURES:
        columns[_name(measure, "distinct")] = "Int64"
        for percentile in PERCENTILES:
            columns |= {_name(measure, f"p{percentile}{end}"): "Float64" for end in ("", "_low", "_high")}
    return columns


def _name(measure: str, part: str) -> str:
    """A column: `e2el_p50_low_s`, the unit last."""
    base = measure.removesuffix("_s")
    return f"{base}_{part}" + ("_s" if base != measure and part != "distinct" else "")


LATENCY_COLUMNS: dict[str, str] = _columns()
"""Columns of the table, with their types."""


def latency_line(found: Mapping[str, Distribution]) -> dict[str, object]:
    """The values of `LATENCY_COLUMNS`, without those that there are not."""
    if not found:
        return {}
    sequences = max(distribution.sequences for distribution in found.values())
    line: dict[str, object] = {"sequences": sequences, f"sequences_to_claim_p{LAST}": more_for(LAST, sequences)}
    for measure, distribution in found.items():
        line[_name(measure, "distinct")] = distribution.distinct
        for percentile, claimed in distribution.claimed.items():
            parts = {"": claimed.value, "_low": claimed.low, "_high": claimed.high}
            line |= {_name(measure, f"p{percentile}{end}"): value for end, value in parts.items()}
    return line
