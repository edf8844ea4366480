"""Fair pairs of launches, and their log ratios.

A pair gives the log ratio of the typical iterations or of the values of two launches. If they ran on different devices
or nodes, the difference between these places is part of the ratio. All such pairs are flagged. They count only if the
numbers of compared launches of both sides differ by at most one for every place. Then the difference cancels, or it is
included in the spread of the pairs.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from statistics import median
from typing import Literal

from rollout_bench.analysis.stats.intervals import mean
from rollout_bench.analysis.timed.experiments import TimedExperiment, launched
from rollout_bench.analysis.timed.launches import LaunchMeasures, Pass
from rollout_bench.contracts.record import Flag, Placement, Record
from rollout_bench.numbers.registry import NUMBERS, MetricName

TRIMMED = 0.2
"""Share of the smallest values, and the same share of the largest, that a typical value leaves out."""

MIN_PASSES = 5
"""Iterations from which trimming leaves out one on each side."""

Way = Literal["rounds", "passes", "launches"]
"""How a pair is compared: by rounds of its block, by each launch's typical iteration, or by the launches' values."""

WAYS: tuple[Way, ...] = ("rounds", "passes", "launches")
"""The most precise first."""


@dataclass(frozen=True)
class Pair:
    """Two launches of one index: the log of own over baseline's value, without a unit, and how it was computed."""

    log_ratio: float
    way: Way


def trimmed_mean(values: Sequence[float]) -> float:
    """Return the mean of `values` [n >= 1] without the floor(0.2 n) smallest and as many largest ones.

    The 20 % trimmed mean (Tukey and McLaughlin, "Less vulnerable confidence and significance procedures for location
    based on a single sample", Sankhya A 25, 1963). A disturbed iteration is nearly always a slow one. It moves this
    mean no further than the next value would. With normal noise its standard error is 5 to 7 % larger than the mean's.

    Raises:
        ValueError: `values` is empty.
    """
    if not values:
        raise ValueError("no values to take a mean of")
    out = math.floor(TRIMMED * len(values))
    return mean(sorted(values)[out : len(values) - out])


def pair_of(metric: MetricName, own: LaunchMeasures, other: LaunchMeasures, whole: bool = False) -> Pair | None:
    """Return the log ratio of launch `own` to its partner `other`; both have `metric`.

    - In one block: the trimmed mean of the log ratios of their iterations, over the rounds that both have. A
      disturbance that slows all engines in a round is in both iterations, so it cancels.
    - Not in a block, both with at least `MIN_PASSES` iterations: the difference of the trimmed means of their
      iterations' logarithms.
    - Otherwise, for metrics of launches only, or with `whole`: the log ratio of the launches' values.

    Return None if a block's launches share no round.

    Raises:
        ValueError: an iteration or a launch has a value that is not above zero.
    """
    if whole or not NUMBERS[metric].numerator:
        return Pair(math.log(own.values[metric]) - math.log(other.values[metric]), "launches")
    if _in_one_block(own.record, other.record):
        mine, theirs = by_round(metric, own), by_round(metric, other)
        ratios = [mine[number] - theirs[number] for number in sorted(mine.keys() & theirs.keys())]
        return Pair(trimmed_mean(ratios), "rounds") if ratios else None
    if typical(own) and typical(other):
        return Pair(trimmed_mean(_logs(metric, own)) - trimmed_mean(_logs(metric, other)), "passes")
    return Pair(math.log(own.values[metric]) - math.log(other.values[metric]), "launches")


def most_precise_pairs(pairs: Mapping[int, Pair], least: int) -> dict[int, Pair]:
    """Return the `pairs`, by launch, of the most precise way that has at least `least` pairs.

    If no way has that many, return the pairs of the most precise way present. Pairs of two ways scatter differently,
    so one spread is not valid for both. With the spread of the narrow pairs, the wide pairs would show false
    differences. That spread may also decide the number of pairs. The choice does not depend on the ratios.
    """
    of_way = {way: {launch: pair for launch, pair in pairs.items() if pair.way == way} for way in WAYS}
    candidates = [pairs_of_way for pairs_of_way in of_way.values() if pairs_of_way]
    return next(
        (pairs_of_way for pairs_of_way in candidates if len(pairs_of_way) >= least), candidates[0] if candidates else {}
    )


def typical(launch: LaunchMeasures) -> bool:
    """Return whether `launch` can be compared by its typical iteration: it has enough iterations."""
    return len(launch.passes) >= MIN_PASSES


def _in_one_block(own: Record, other: Record) -> bool:
    return own.block is not None and other.block is not None and own.block.id == other.block.id


def typical_value(metric: MetricName, launch: LaunchMeasures) -> float:
    """Return the trimmed geometric mean over the iterations of `launch`, in the unit of `metric`."""
    return math.exp(trimmed_mean(_logs(metric, launch)))


def by_round(metric: MetricName, launch: LaunchMeasures) -> dict[int, float]:
    """Return the logarithm of `metric` in each iteration of `launch`, by its round."""
    logs = _logs(metric, launch)
    return {each.round: log for each, log in zip(launch.passes, logs, strict=True) if each.round is not None}


def has_undefined_log(metric: MetricName, launch: LaunchMeasures) -> bool:
    """Return whether the logarithm of `metric` is undefined for an iteration of `launch`.

    Examples: nothing was generated, the times of its sequences are unknown, or its tail is 0 s long.
    """
    number = NUMBERS[metric]
    return bool(number.numerator) and any(not (number.ratio_over([each.columns]) or 0) > 0 for each in launch.passes)


def ratio_of_totals(metric: MetricName, pairs: Iterable[tuple[LaunchMeasures, LaunchMeasures]]) -> float | None:
    """Return own over the baseline's value of `metric`, over all iterations of `pairs` (own, baseline's) together.

    For a throughput, this is the ratio of the total times per token. Every second counts, including iterations that a
    typical ratio leaves out. For launches of one block, only rounds that both have are used. Return None without pairs,
    and for metrics of launches only.
    """
    sides = zip(*(_passes(*launches) for launches in pairs), strict=True)
    values = [NUMBERS[metric].ratio_over(each.columns for passes in side for each in passes) for side in sides]
    return values[0] / values[1] if len(values) == 2 and values[0] and values[1] else None


def _passes(own: LaunchMeasures, other: LaunchMeasures) -> tuple[Sequence[Pass], Sequence[Pass]]:
    """Return the comparable iterations of both launches: in one block, iterations of rounds that both have."""
    if not _in_one_block(own.record, other.record):
        return own.passes, other.passes
    both = {each.round for each in own.passes} & {each.round for each in other.passes}
    mine, theirs = ([each for each in side.passes if each.round in both] for side in (own, other))
    return mine, theirs


def paired_launches(
    own: Iterable[LaunchMeasures], theirs: Iterable[LaunchMeasures]
) -> dict[int, tuple[LaunchMeasures, LaunchMeasures]]:
    """Return the pairs of launches that both sides have, by their index."""
    by_launch: Mapping[int, LaunchMeasures] = {launch.launch: launch for launch in theirs}
    both = {launch.launch: (launch, by_launch[launch.launch]) for launch in own if launch.launch in by_launch}
    return dict(sorted(both.items()))


def _logs(metric: MetricName, launch: LaunchMeasures) -> list[float]:
    return [math.log(NUMBERS[metric].ratio_over([each.columns]) or 0) for each in launch.passes]


SLACK_S = 600.0
"""Seconds that two launches of one round may be apart beyond the duration of the launches between them. It allows for
waiting for free devices and for building weights. Disturbances of the machine are shorter: on two cores, launches four
minutes apart had nothing left in common (studies/results/launches.json). Such a pair is unbiased, because the order
within a round is balanced, but no more precise than any other pair. Leaving it out would lose a pair.
"""


def round_s(experiments: Sequence[TimedExperiment]) -> float:
    """Return the maximum time between the starts of two launches of one round of `experiments`, in seconds.

    It is twice the duration of one launch of each experiment, plus `SLACK_S`. The two launches may be the first and the
    last of the round, whose order changes each time, and launches between them may fail and be restarted.
    """
    each = launched(experiments)
    taken = [record.wall_s for experiment in each for record in experiment.records]
    return 2 * len(each) * median(taken) + SLACK_S if taken else SLACK_S


def _out_of_turn(own: Record, partner: Record | None, limit_s: float) -> Flag | None:
    """Return the flag of a launch that started more than `limit_s` before or after its partner in the baseline.

    Launches of a block are interleaved with the whole block; they are flagged if their partner is not of the same
    block. This happens if one side was measured later, for an added experiment or after a record was deleted. A change
    of the machine in between is the same in all of their ratios, so no number of launches would reveal it.
    """
    if partner is None or _in_one_block(own, partner):
        return None
    if own.block is not None or partner.block is not None:
        where, theirs = ("by itself" if side.block is None else "in a block" for side in (own, partner))
        theirs = "in another" if where == theirs else theirs
        sentence = (
            f"It was measured {where}, its partner in the baseline {theirs}: what changed meanwhile would pass for a "
            "difference, so they are no pair. The next call measures the block whole; "
            "where memory does not hold all of its engines at once, set interleave: false."
        )
        return Flag(code="not_interleaved", severity="warning", sentence=sentence)
    apart_s = abs(_started_s(own) - _started_s(partner))
    if apart_s <= limit_s:
        return None
    sentence = (
        f"It and its partner in the baseline started {_hours(apart_s)} apart, and launches that take turns at "
        f"most {_hours(limit_s)}: what changed meanwhile would pass for a difference, so they are no pair."
    )
    return Flag(code="not_in_turn", severity="warning", sentence=sentence)


def _started_s(record: Record) -> float:
    return datetime.fromisoformat(record.started_at).timestamp()


def _hours(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds < 2 * 3600 else f"{seconds / 3600:.1f} h"


def marked_unfair(
    launches: Sequence[LaunchMeasures], other: TimedExperiment, limit_s: float
) -> tuple[LaunchMeasures, ...]:
    """Mark `launches` that are not a fair pair with their partner in `other`.

    These are launches that were not interleaved (`_out_of_turn`), and launches in another place unless the places
    balance (`_comparable_places`). Every launch in another place gets a flag. Records without a place get none.
    """
    theirs = {record.launch: record for record in other.records}
    turned = []
    for launch in launches:
        flag = _out_of_turn(launch.record, theirs.get(launch.launch), limit_s)
        turned.append(launch if flag is None else replace(launch, flags=(*launch.flags, flag), paired=False))
    places = {
        each.launch: (placement, other_placement)
        for each in turned
        if (placement := each.record.placement) is not None
        and each.launch in theirs
        and (other_placement := theirs[each.launch].placement) is not None
    }
    counted = [e.launch for e in turned if e.paired and e.launch in places and e.valid and theirs[e.launch].valid]
    uneven = {*counted} - {*_comparable_places({number: places[number] for number in sorted(counted)})}
    return tuple(
        replace(
            each,
            flags=(*each.flags, *place_flags(*places[each.launch])),
            paired=each.paired and each.launch not in uneven,
        )
        if each.launch in places
        else each
        for each in turned
    )


def _comparable_places(places: Mapping[int, tuple[Placement, Placement]]) -> list[int]:
    """Return the launches whose `places`, own and the partner's, can be compared.

    For a device, node or neighbourhood, let k be the number of launches of one side minus that of the other side. If
    every |k| <= 1, all launches can be compared. Otherwise launches are added one after the other if this still holds
    with them. Assume that each place adds an independent value with variance v to a log ratio. Then the places add
    sum(k^2) v / n^2 to the variance of the mean of n pairs. If u pairs are of two places, the spread of the pairs
    estimates this part as (2 u - sum(k^2) / n) v / (n (n - 1)). With every |k| <= 1 the estimate is never too small,
    since sum(k^2) = sum(|k|) <= 2 u. The choice does not depend on the ratios.
    """
    apart = {launch: _place_differences(*pair) for launch, pair in places.items()}
    if _most(apart.values()) <= 1:
        return list(apart)
    kept: list[int] = []
    for launch in apart:
        if _most(apart[each] for each in (*kept, launch)) <= 1:
            kept.append(launch)
    return kept


def _most(each: Iterable[Counter[str]]) -> int:
    total: Counter[str] = Counter()
    for one in each:
        total.update(one)
    return max(map(abs, total.values()), default=0)


def _place_differences(own: Placement, other: Placement) -> Counter[str]:
    """Return 1 for each place that only `own` had, and -1 for each place that only its partner had."""
    differences = Counter({"beside others": bool(own.neighbours) - bool(other.neighbours)})
    sides = ({own.node}, {other.node}) if own.node != other.node else ({*own.devices}, {*other.devices})
    if own.node != other.node or _differ(own, other):
        differences.update(sides[0] - sides[1])
        differences.subtract(sides[1] - sides[0])
    return differences


def place_flags(own: Placement, other: Placement) -> list[Flag]:
    """Return the flags of a pair for the places of its launches: `own`, and its partner in the baseline."""
    devices, others = ", ".join(own.devices), ", ".join(other.devices)
    alone, beside = ("its partner in the baseline", "It") if own.neighbours else ("it", "Its partner")
    rows = (
        (
            "other_node",
            own.node != other.node,
            f"It ran on {own.node}, its partner in the baseline on {other.node}: nodes may differ in speed.",
        ),
        (
            "other_device",
            own.node == other.node and _differ(own, other),
            f"It ran on {devices}, its partner in the baseline on {others}: devices may differ in speed.",
        ),
        (
            "other_neighbours",
            bool(own.neighbours) != bool(other.neighbours),
            f"{beside} ran beside other launches of the node, {alone} alone: what they took is part of the ratio.",
        ),
    )
    return [Flag(code=code, severity="warning", sentence=sentence) for code, applies, sentence in rows if applies]


def _differ(own: Placement, other: Placement) -> bool:
    """Return whether the devices differ.

    Different numbers of devices were requested, so they do not count as a difference.
    """
    known = own.devices and other.devices
    return bool(known) and len(own.devices) == len(other.devices) and set(own.devices) != set(other.devices)
