"""Percentiles of the sequences of an experiment: those that they can claim, and what the others lack."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from rollout_bench.analysis.percentiles import Array, percentile_interval, samples_needed
from rollout_bench.analysis.requests import LATENCIES
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
    """One measure of `sequences` sequences, which tell as much as `independent` independent ones would.

    `claimed` has what so many can claim. `by_launch` has, where each launch is a sample of its own, the means over
    launches of what every one of them can claim.
    """

    sequences: int
    independent: int
    claimed: Mapping[int, Claimed]
    by_launch: Mapping[int, float] = field(default_factory=dict)


def distributions(pooled: PooledSequences) -> dict[str, Distribution]:
    """The distribution of each measure that `pooled` has."""
    return {
        measure: replace(
            distribution(values, pooled.independent[measure]), by_launch=_by_launch(pooled.launches.get(measure, ()))
        )
        for measure, values in pooled.values.items()
    }


def _by_launch(launches: Sequence[tuple[Array, int]]) -> dict[int, float]:
    """Means over `launches`, each its values [n] and as how many independent ones they count."""
    found = [distribution(values, independent) for values, independent in launches]
    common = [p for p in PERCENTILES if found and all(p in each.claimed for each in found)]
    return {p: float(np.mean([each.claimed[p].value for each in found])) for p in common}


def distribution(values: Array, independent: int) -> Distribution:
    """The distribution of `values` [n >= 1], which tell as much as `independent` <= n independent ones."""
    ordered = np.sort(values)  # so that sorting it again for each percentile costs next to nothing
    claimed = {}
    for percentile in claimable(independent):
        found = percentile_interval(ordered, percentile / 100, independent=independent)
        claimed[percentile] = Claimed(percentile, float(found.estimate), float(found.low), float(found.high))
    return Distribution(len(ordered), independent, claimed)


def claimable(samples: int) -> list[int]:
    """Those of `PERCENTILES` that so many independent values can claim."""
    return [percentile for percentile in PERCENTILES if samples >= samples_needed(percentile / 100)]


def more_for(percentile: int, independent: int) -> int:
    """Independent values that `percentile` still lacks."""
    return max(0, samples_needed(percentile / 100) - independent)


def _columns(measures: Iterable[str]) -> dict[str, str]:
    columns = {}
    for measure in measures:
        columns[_name(measure, "independent")] = "Int64"
        for percentile in PERCENTILES:
            columns |= {_name(measure, f"p{percentile}{end}"): "Float64" for end in ("", "_low", "_high")}
    return columns


def _name(measure: str, part: str) -> str:
    """A column: `e2el_p50_low_s`, the unit last."""
    base = measure.removesuffix("_s")
    return f"{base}_{part}" + ("_s" if base != measure and part != "independent" else "")


LATENCY_COLUMNS: dict[str, str] = {"sequences": "Int64"} | _columns(MEASURES)
"""Columns of the table, with their types."""

REQUEST_COLUMNS: dict[str, str] = _columns(measure for measure in LATENCIES if measure not in MEASURES) | {
    _name(measure, f"p{percentile}_launch_mean"): "Float64" for measure in LATENCIES for percentile in PERCENTILES
}
"""Those that only requests to a server have."""


def latency_line(found: Mapping[str, Distribution]) -> dict[str, object]:
    """The values of `LATENCY_COLUMNS`, without those that there are not."""
    if not found:
        return {}
    # Of the gaps between tokens, which are among the measures of a request, there are many more.
    sequences = [d.sequences for measure, d in found.items() if measure != "itl_s"]
    line: dict[str, object] = {"sequences": max(sequences, default=None)}
    for measure, distribution in found.items():
        line[_name(measure, "independent")] = distribution.independent
        for percentile, claimed in distribution.claimed.items():
            parts = {"": claimed.value, "_low": claimed.low, "_high": claimed.high}
            line |= {_name(measure, f"p{percentile}{end}"): value for end, value in parts.items()}
        line |= {_name(measure, f"p{p}_launch_mean"): value for p, value in distribution.by_launch.items()}
    return line
