"""Notes of a summary on its verdicts: the method, and unused launches."""

from collections.abc import Iterator, Sequence
from typing import Any

from rollout_bench.analysis.stats.two_stages import ALONE, FIRST, FirstStage
from rollout_bench.analysis.timed.comparison import (
    FEW_PAIRS,
    FOUND,
    MIN_PAIRS,
    MODE_SHARE,
)
from rollout_bench.analysis.timed.facts import Group
from rollout_bench.analysis.timed.pairs import Way
from rollout_bench.analysis.timed.rows import Row
from rollout_bench.core.mappings import grouped
from rollout_bench.numbers.registry import NUMBERS, MetricName
from rollout_bench.plan.config import ComparisonSettings, Precision


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
    compared = [(row, metric, comparison) for row in rows for metric, comparison in row.comparisons.items()]
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
        # no test on the observed values can miss it less often (Bahadur and Savage, Annals of Mathematical Statistics
        # 27, 1956)
        "missed": MODE_SHARE**starts + (1 - MODE_SHARE) ** starts,
        "differing": differing(rows),
        "compared": sum(row.against.other is not None for row in rows),
        "found_by_few": [
            (_name(row, metric), [each.pairs[launch] for launch in sorted(each.pairs)])
            for row, metric, each in compared
            if each.verdict in FOUND and 0 < len(each.pairs) < FEW_PAIRS
        ],
        "unpaired": [
            (_name(row, metric), each) for row, metric, each in compared if each.unpaired or each.baseline_unpaired
        ],
        "ways": sorted(
            {way for _, metric, each in compared if each.of_passes or NUMBERS[metric].numerator for way in each.ways}
        ),
        "other_ways": list(_other_ways(rows)),
        "carried": [
            (_name(row, metric), each.speedup, each.of_totals) for row, metric, each in compared if each.carried_by_few
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


def _other_ways(rows: Sequence[Row]) -> Iterator[tuple[str, Way, dict[Way, list[int]]]]:
    """Yield the name of a row, its way of comparison, and the launches that are left out, by their own way.

    Launches are left out if their pairs were computed in another way. If several metrics of a row leave out the same
    launches, they are yielded once.
    """
    for row in rows:
        reported = set()
        for comparison in row.comparisons.values():
            left_out = grouped((way, launch) for launch, way in sorted(comparison.other_way.items()))
            if left_out and str(left_out) not in reported:
                reported.add(str(left_out))
                (way,) = comparison.ways
                yield row.name, way, left_out


def _name(row: Row, metric: MetricName) -> str:
    return row.name + (f", {NUMBERS[metric].speedup}" if len(row.comparisons) > 1 else "")
