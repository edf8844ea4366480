"""Notes of a summary on its verdicts: the method, and unused launches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rollout_bench.analysis.stats.intervals import mean
from rollout_bench.analysis.stats.two_stages import ALONE, FIRST, FirstStage
from rollout_bench.analysis.timed.comparison import (
    FEW_PAIRS,
    FOUND,
    MIN_PAIRS,
    MODE_SHARE,
    Comparison,
    missed_modes,
)
from rollout_bench.analysis.timed.launches import values_of
from rollout_bench.analysis.timed.pairs import WAYS, Way
from rollout_bench.analysis.timed.partners import Group
from rollout_bench.analysis.timed.rows import Row
from rollout_bench.contracts.metrics import METRICS, MetricName
from rollout_bench.core.mappings import grouped
from rollout_bench.core.numbers import ratio
from rollout_bench.plan.config import ComparisonSettings, Precision
from rollout_bench.report.designs import in_groups


def verdict_values(
    rows: Sequence[Row], settings: ComparisonSettings, precision: Precision | None = None, *, apart: bool = False
) -> dict[str, Any]:
    """Return the values for templates/verdicts.md.j2.

    Args:
        rows: the compared rows.
        settings: settings of the comparison.
        precision: the rule for the number of launches, if it is not fixed.
        apart: whether the sides of the comparisons were not interleaved.
    """
    compared = list(_each(rows))
    starts = min((min(each.launches_used) for _, _, each in compared if each.low is not None), default=0)
    return {
        "settings": settings,
        "stages": precision,
        "first": FIRST,
        "alone": ALONE,
        "asked": [] if precision is None else list(_asked(rows)),
        "apart": apart,
        "min_pairs": MIN_PAIRS,
        "few_pairs": FEW_PAIRS,
        "starts": starts,
        "mode_share": MODE_SHARE,
        "missed": missed_modes(MODE_SHARE, starts),
        "differing": differing(rows),
        "compared": sum(row.against.other is not None for row in rows),
        "found_by_few": [
            (f"{row.name}{of}", [each.pairs[launch] for launch in sorted(each.pairs)])
            for row, of, each in compared
            if each.verdict in FOUND and 0 < len(each.pairs) < FEW_PAIRS
        ],
        "unpaired": [
            (f"{row.name}{of}", each) for row, of, each in compared if each.unpaired or each.baseline_unpaired
        ],
        "other_means": list(_other_means(rows)),
        "typical_means": list(_typical_means(rows)),
        "ways": sorted(
            {
                way
                for _, metric, each in _with_metric(rows)
                if each.of_passes or METRICS[metric].of_passes
                for way in each.ways
            }
        ),
        "never_of_passes": _never_of_passes(rows),
        "grouped": any(
            in_groups(record.block) for row in rows for record in row.experiment.records if record.block is not None
        ),
        "other_ways": list(_other_ways(rows)),
        "apart_by_way": list(_apart_by_way(rows)),
        "unlike_iterations": list(_unlike_iterations(rows)),
        "carried": [
            (f"{row.name}{of}", each.speedup, each.of_totals) for row, of, each in compared if each.carried_by_few
        ],
    }


def _asked(rows: Sequence[Row]) -> Iterator[tuple[str, Way, FirstStage, int, float]]:
    """Yield name, way of comparison, result of the first stage, present number of pairs, and half width."""
    for row in rows:
        found = next((comparison for comparison in row.comparisons.values() if comparison.first_stage), None)
        if found is None or found.first_stage is None or found.high is None or found.speedup is None:
            continue
        (way,) = found.ways
        yield row.name, way, found.first_stage, len(found.pairs), found.high / found.speedup - 1


def differing(
    rows: Sequence[Row], groups: Sequence[Group] = ("engine", "machine", "circumstance")
) -> dict[str, list[str]]:
    """Return each fact of `groups` that differs between rows and their counterparts, with the names of these rows."""
    found = ((each, row.name) for row in rows for each in row.against.differences if each.group in groups)
    return {str(difference): names for difference, names in grouped(found).items()}


def _other_means(rows: Sequence[Row]) -> Iterator[tuple[str, int, int, int]]:
    """Yield rows whose means include launches outside of their pairs: name, number of pairs, launches of both sides."""
    for name, metric, comparison, sides in _with_baseline(rows):
        own, theirs = (len(values_of(metric, side.used)) for side in sides)
        if comparison.pairs and max(own, theirs) > len(comparison.pairs):
            yield name, len(comparison.pairs), own, theirs


def _typical_means(rows: Sequence[Row]) -> Iterator[tuple[str, float, float]]:
    """Yield rows whose typical speed-up differs from the ratio of their means: name, ratio of means, speed-up."""
    for name, metric, comparison, sides in _with_baseline(rows):
        if not comparison.of_passes or comparison.speedup is None:
            continue
        own, theirs = (mean(list(values_of(metric, side.used).values())) for side in sides)
        means = own / theirs if METRICS[metric].better == "higher" else theirs / own
        if ratio(means) != ratio(comparison.speedup):
            yield name, means, comparison.speedup


def _with_baseline(rows: Sequence[Row]) -> Iterator[tuple[str, MetricName, Comparison, tuple[Row, Row]]]:
    """Yield each comparison with one of `rows` and both rows; earlier results have the same names but are not rows."""
    by_place = {row.experiment.place: row for row in rows}
    for row, metric, comparison in _with_metric(rows):
        baseline = by_place.get(row.against.other.place) if row.against.other else None
        if baseline is not None and baseline is not row:
            yield f"{row.name}{_of(row, metric)}", metric, comparison, (row, baseline)


def _never_of_passes(rows: Sequence[Row]) -> list[str]:
    """Return the headers of metrics that compare whole launches, if other metrics compare iterations."""
    compared = [(metric, comparison) for _, metric, comparison in _with_metric(rows) if comparison.ways]
    if not any(comparison.of_passes for _, comparison in compared):
        return []
    whole = (metric for metric, each in compared if METRICS[metric].of_passes is None and not each.of_passes)
    return list(dict.fromkeys(METRICS[metric].header for metric in whole))


def _other_ways(rows: Sequence[Row]) -> Iterator[tuple[str, Way, dict[Way, list[int]]]]:
    """Yield the name of a row, its way of comparison, and the launches that are left out, by their own way.

    Launches are left out if their pairs were computed in another way. If several metrics of a row leave out the same
    launches, they are yielded once.
    """
    for row in rows:
        told = set()
        for comparison in row.comparisons.values():
            left_out = grouped((way, launch) for launch, way in sorted(comparison.other_way.items()))
            if left_out and str(left_out) not in told:
                told.add(str(left_out))
                (way,) = comparison.ways
                yield row.name, way, left_out


def _apart_by_way(rows: Sequence[Row]) -> Iterator[tuple[Way, list[str]]]:
    """Yield names of rows by their way of comparison, if rows with one baseline are compared in different ways."""
    tables: dict[tuple[object, MetricName], list[tuple[Row, Way]]] = {}
    for row, metric, comparison in _with_metric(rows):
        if row.against.other is not None and comparison.pairs:
            tables.setdefault((row.against.other.place, metric), []).extend((row, way) for way in comparison.ways)
    found: dict[Way, dict[str, None]] = {}
    for table in tables.values():
        if len({way for _, way in table}) > 1:
            for row, way in table:
                found.setdefault(way, {})[row.name] = None
    for way in sorted(found, key=WAYS.index):
        yield way, list(found[way])


def _unlike_iterations(rows: Sequence[Row]) -> Iterator[tuple[str, str, str]]:
    """Yield names of rows whose number of iterations differs from their baseline's, and both numbers."""
    for row in rows:
        if row.against.other is None or not any(comparison.ways for comparison in row.comparisons.values()):
            continue
        own, theirs = (str(side.records[0].spec.measuring.iterations) for side in (row.experiment, row.against.other))
        if own != theirs and "auto" in (own, theirs):
            yield row.name, own, theirs


def _with_metric(rows: Sequence[Row]) -> Iterator[tuple[Row, MetricName, Comparison]]:
    for row in rows:
        for metric, comparison in row.comparisons.items():
            yield row, metric, comparison


def _each(rows: Sequence[Row]) -> Iterator[tuple[Row, str, Comparison]]:
    for row, metric, comparison in _with_metric(rows):
        yield row, _of(row, metric), comparison


def _of(row: Row, metric: MetricName) -> str:
    return f", {METRICS[metric].speedup}" if len(row.comparisons) > 1 else ""
