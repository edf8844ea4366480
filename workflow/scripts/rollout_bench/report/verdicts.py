"""The foot of a summary on its verdicts: the method, what was not used, and what more launches would show."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from rollout_bench.analysis.stats.sequential import StoppingRule
from rollout_bench.analysis.timed.comparison import MIN_PAIRS, Comparison
from rollout_bench.analysis.timed.partners import Difference, Group
from rollout_bench.analysis.timed.rows import Row
from rollout_bench.contracts.metrics import METRICS
from rollout_bench.core.numbers import percent, plain_percent, several
from rollout_bench.plan.config import ComparisonSettings, Precision


def verdict_notes(
    rows: Sequence[Row], settings: ComparisonSettings, precision: Precision | None = None, *, apart: bool = False
) -> tuple[str, ...]:
    """The items of the section, each a sentence or a few.

    `precision` where it decides how many launches there are; `apart`: sides that did not take turns were compared.
    """
    stopping = () if precision is None else (_stopping(settings, precision), *_too_wide(rows, precision))
    return (*rule(settings, apart), *stopping, *_differing(rows), *needed(rows, settings), *_unpaired(rows))


def rule(settings: ComparisonSettings, apart: bool = False) -> tuple[str, ...]:
    """The method in plain words, every number defined."""
    error = plain_percent(1 - settings.confidence)
    relevant, power = plain_percent(settings.relevant_difference), plain_percent(settings.power)
    return (
        "Marks: ^ faster; v slower; ~ no difference found, with the size that would have been, or found but too small "
        f"to matter; ? no verdict, with the {'launches of a side' if apart else 'pairs of launches'} still missing "
        f"(it takes {MIN_PAIRS}).",
        *(_apart(settings) if apart else _in_pairs(settings)),
        "^ and v: the two-sided p value of that t test, adjusted by Holm's method for all comparisons in one table and "
        f"column, is below {_fraction(1 - settings.confidence)}, and the speed-up is at least {relevant} off 1 "
        f"(x {_fraction(1 + settings.relevant_difference)} or more, either way). So a column without any true "
        f"difference shows one in at most {error} of cases. The adjustment can leave a ~ beside an interval "
        "without 1 in it.",
        f"~ (< size): a true difference of that size would have been found with a chance of {power}, were the spread "
        f"of these {'launches' if apart else 'pairs'} the true one (few tell it roughly, and the size with it), at the "
        f"strictest level that Holm asks of this table ({_fraction(1 - settings.confidence)} / comparisons). It "
        "does not say that there is no smaller one, and how large one may be is what the interval tells. "
        f"~ (real, but below {relevant}): found, and its whole interval is closer to 1 than {relevant}; "
        f"~ (real, perhaps below {relevant}): found, and only the speed-up itself is.",
    )


def _stopping(settings: ComparisonSettings, precision: Precision) -> str:
    least, most = precision.min_launches, precision.max_launches
    rule = StoppingRule(precision.half_width, least, most, settings.confidence)
    return (
        "launches: auto: each experiment was launched until the interval of its first speed-up reached no further than "
        f"{plain_percent(precision.half_width)} off it, {least} times at the least and {most} at most. Looking after "
        f"each launch would find more that is not there, so the t interval at each look has a confidence of "
        f"{100 * rule.level:.4g} %, with which all of them from {least} to {most} launches together hold at "
        f"{plain_percent(settings.confidence)}, and p values are those over all looks (group-sequential, with repeated "
        "confidence intervals: Pocock 1977; Jennison and Turnbull 1989)."
    )


def _too_wide(rows: Sequence[Row], precision: Precision) -> Iterator[str]:
    for row in rows:
        comparison = row.comparison
        experiment = row.experiment
        if comparison.high is None or comparison.speedup is None or experiment.planned != precision.max_launches:
            continue
        if experiment.missing or experiment.failures:
            continue
        half_width = comparison.high / comparison.speedup - 1
        if half_width > precision.half_width:
            yield (
                f"{row.name}: the limit of {several(precision.max_launches, 'launch')} came before the precision: the "
                f"interval reaches {percent(half_width)} off the speed-up, {plain_percent(precision.half_width)} "
                "was wanted."
            )


def _in_pairs(settings: ComparisonSettings) -> tuple[str, ...]:
    confidence = plain_percent(settings.confidence)
    return (
        "Unit: the launch. Iterations inside one resemble each other, so a launch counts as one value, and launches of "
        "the same index, run in the same round, as one pair; those that ran apart (flag not_in_turn) are none. "
        "Launches without a partner are not used.",
        f"Interval: {confidence} t interval of the mean log ratio of the pairs (n - 1 degrees of freedom): of such "
        f"intervals, each taken alone, {confidence} hold the true speed-up, if pairs are independent and their log "
        "ratios about normal (docs/validation.md has what other noise does).",
    )


def _apart(settings: ComparisonSettings) -> tuple[str, ...]:
    confidence = plain_percent(settings.confidence)
    return (
        "Nothing took turns: the sides were measured one after the other or on different machines. Whatever else "
        "changed between them (temperature, other load, a clock) is part of each speed-up, and no statistics can take "
        "it out; the interval holds chance alone.",
        "Unit: the launch. Iterations inside one resemble each other, so a launch counts as one value. All valid "
        "launches of both sides are used, whatever their index.",
        f"Interval: {confidence} t interval of the difference of the mean logarithms, each side with a spread of its "
        "own (Welch's, with Satterthwaite's degrees of freedom, at most twice those of the smaller side): of such "
        f"intervals, each taken alone, about {confidence} hold the ratio of the two sides as they were measured.",
    )


def _differing(rows: Sequence[Row]) -> Iterator[str]:
    for line in differing(rows):
        yield f"Differs from its baseline (baseline -> own): {line}"


def differing(rows: Sequence[Row], groups: Sequence[Group] = ("engine", "machine", "circumstance")) -> Iterator[str]:
    """A line for each fact of `groups` in which rows differ from what they are compared with, and which rows do."""
    by_fact: dict[Difference, list[str]] = {}
    for row in rows:
        for difference in row.against.differences:
            if difference.group in groups:
                by_fact.setdefault(difference, []).append(row.name)
    compared = sum(row.against.other is not None for row in rows)
    for difference, names in by_fact.items():
        yield f"{difference} ({those(names, compared)})"


def those(names: Sequence[str], compared: int) -> str:
    """`all compared`, or which of them."""
    return "all compared" if len(names) == compared > 1 else "; ".join(names)


def needed(rows: Sequence[Row], settings: ComparisonSettings) -> Iterator[str]:
    """For each ~ about how many launches would find the relevant difference."""
    lacking: dict[str, list[Comparison]] = {}
    for row, metric, comparison in _each(rows):
        if comparison.verdict == "undetected" and settings.relevant_difference:
            lacking.setdefault(f"{row.whole_name}{metric}", []).append(comparison)
    for name, comparisons in lacking.items():
        # Of the loads of a sweep the one that takes fewest: a line for each would hide the rest.
        comparison = min(comparisons, key=lambda each: each.launches_for_relevant or math.inf)
        launches = comparison.launches_for_relevant
        amount = "more launches than are worth it" if launches is None else f"about {several(launches, 'launch')}"
        amount += f" or more (by load, {len(comparisons)} of them)" if len(comparisons) > 1 else ""
        yield (
            f"{name}: to find a difference of {plain_percent(settings.relevant_difference)} would take "
            f"{amount} of each side at this spread; {_used(comparison)} were used."
        )


def _used(comparison: Comparison) -> str:
    own, other = comparison.launches_used
    return str(own) if own == other else f"{own} and {other}"


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
            yield row, f", {METRICS[metric].speedup}" if len(row.comparisons) > 1 else "", comparison


def _fraction(value: float) -> str:
    return f"{value:.6g}"
