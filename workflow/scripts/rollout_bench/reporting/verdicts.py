"""The foot of a summary on its verdicts: the method, what was not used, and what more launches would show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rollout_bench.analysis.comparison import MIN_PAIRS, Comparison
from rollout_bench.analysis.metrics import METRICS
from rollout_bench.analysis.rows import Row
from rollout_bench.plan.comparing import ComparisonSettings
from rollout_bench.reporting.numbers import plain_percent, several


def verdict_notes(rows: Sequence[Row], settings: ComparisonSettings) -> tuple[str, ...]:
    """The items of the section, each a sentence or a few."""
    return (*rule(settings), *_needed(rows, settings), *_unpaired(rows))


def rule(settings: ComparisonSettings) -> tuple[str, ...]:
    """The method in plain words, every number defined."""
    confidence, error = plain_percent(settings.confidence), plain_percent(1 - settings.confidence)
    relevant, power = plain_percent(settings.relevant_difference), plain_percent(settings.power)
    return (
        "Marks: ^ faster; v slower; ~ no difference found, with the size that would have been, or found but too small "
        f"to matter; ? no verdict, with the pairs of launches still missing (it takes {MIN_PAIRS}).",
        "Unit: the launch. Iterations inside one resemble each other, so a launch counts as one value, and launches of "
        "the same index, run one after the other, as one pair. Launches without a partner are not used.",
        f"Interval: {confidence} t interval of the mean log ratio of the pairs (n - 1 degrees of freedom): of such "
        f"intervals, each taken alone, {confidence} hold the true speed-up.",
        "^ and v: the two-sided p value of that t test, adjusted by Holm's method for all comparisons in one table and "
        f"column, is below {_fraction(1 - settings.confidence)}, and the speed-up is at least {relevant} off 1 "
        f"(x {_fraction(1 + settings.relevant_difference)} or more, either way). So a table without any true "
        f"difference shows one in at most {error} of cases. The adjustment can leave a ~ beside an interval "
        "without 1 in it.",
        f"~ (< size): a true difference of that size or more would have been found with a chance of {power} or more, "
        "given the spread of these pairs and the strictest level that Holm asks of this table "
        f"({_fraction(1 - settings.confidence)} / comparisons). It does not say that there is no smaller one, and how "
        f"large one may be is what the interval tells. ~ (real, but below {relevant}): found, and closer to 1 than "
        f"{relevant}.",
    )


def _needed(rows: Sequence[Row], settings: ComparisonSettings) -> Iterator[str]:
    for row, metric, comparison in _each(rows):
        if comparison.verdict != "undetected" or not settings.relevant_difference:
            continue
        pairs = comparison.pairs_for_relevant
        amount = "more launches than are worth it" if pairs is None else f"about {several(pairs, 'launch')}"
        yield (
            f"{row.name}{metric}: to find a difference of {plain_percent(settings.relevant_difference)} would take "
            f"{amount} of each side at this spread; {len(comparison.pairs)} were used."
        )


def _unpaired(rows: Sequence[Row]) -> Iterator[str]:
    for row, metric, comparison in _each(rows):
        parts = [(comparison.unpaired, "of its own"), (comparison.baseline_unpaired, "of its baseline's")]
        told = [f"{several(amount, 'launch')} {whose}" for amount, whose in parts if amount]
        if told:
            yield (
                f"{row.name}{metric}: {' and '.join(told)} not used, without a valid partner of the same index; "
                f"{several(len(comparison.pairs), 'pair')} used."
            )


def _each(rows: Sequence[Row]) -> Iterator[tuple[Row, str, Comparison]]:
    for row in rows:
        for metric, comparison in row.comparisons.items():
            yield row, f", {METRICS[metric].header}" if len(row.comparisons) > 1 else "", comparison


def _fraction(value: float) -> str:
    return f"{value:.6g}"
