"""What a pair of launches tells of two configurations: the log ratio of their typical passes, or of their values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from rollout_bench.analysis.stats.intervals import mean
from rollout_bench.analysis.timed.launches import LaunchMeasures
from rollout_bench.contracts.metrics import METRICS, MetricName
from rollout_bench.contracts.record import Iteration

TRIMMED = 0.2
"""Share of the smallest values, and as much of the largest, that a typical value leaves out."""

MIN_PASSES = 5
"""Passes from which on trimming leaves one out on each side."""

Way = Literal["rounds", "passes", "launches"]
"""How a pair is compared: round by round of its block, by each launch's typical pass, or by the launches' values."""

WAYS: tuple[Way, ...] = ("rounds", "passes", "launches")
"""The most precise first."""


@dataclass(frozen=True)
class Pair:
    """Two launches of one index: the log of own over baseline's value, without a unit, and how it was found."""

    log_ratio: float
    way: Way


def trimmed_mean(values: Sequence[float]) -> float:
    """Return the mean of `values` [n >= 1] without the floor(0.2 n) smallest and as many largest ones.

    The 20 % trimmed mean (Tukey and McLaughlin, "Less vulnerable confidence and significance procedures for location
    based on a single sample", Sankhya A 25, 1963): a disturbed pass, which is nearly always a slow one, moves it by no
    more than the next value would, and where noise is normal its standard error is 5 to 7 % larger than the mean's.

    Raises:
        ValueError: there are none.
    """
    if not values:
        raise ValueError("no values to take a mean of")
    out = math.floor(TRIMMED * len(values))
    return mean(sorted(values)[out : len(values) - out])


def pair_of(metric: MetricName, own: LaunchMeasures, other: LaunchMeasures) -> Pair | None:
    """Return what launch `own` tells against its partner `other`, which both have `metric`.

    - In one block: the trimmed mean over the rounds that both have of the log ratio of their passes. What slows all
      engines in a round is in both passes and so not in the ratio.
    - Not in a block, both with at least `MIN_PASSES` passes and `iterations: auto`: the difference of the trimmed means
      of their passes' logarithms.
    - Otherwise, and where a pass has no value of the metric: the log ratio of the launches' values.

    None where a block's launches share no round.

    Raises:
        ValueError: a pass or a launch has a value that is not above zero.
    """
    same_block = own.block is not None and own.block == other.block
    if METRICS[metric].of_passes is None:
        return Pair(math.log(own.values[metric]) - math.log(other.values[metric]), "launches")
    if same_block:
        mine, theirs = by_round(metric, own), by_round(metric, other)
        ratios = [mine[number] - theirs[number] for number in sorted(mine.keys() & theirs.keys())]
        return Pair(trimmed_mean(ratios), "rounds") if ratios else None
    if typical(own) and typical(other):
        return Pair(trimmed_mean(_logs(metric, own)) - trimmed_mean(_logs(metric, other)), "passes")
    return Pair(math.log(own.values[metric]) - math.log(other.values[metric]), "launches")


def of_one_way(pairs: Mapping[int, Pair], least: int) -> dict[int, Pair]:
    """Return those of `pairs`, by launch, that are of the most precise way of which there are at least `least`.

    Where no way has as many, those of the most precise way that there is. Pairs of two ways scatter differently, so
    one spread does not hold for both: that of the narrow ones, which may even decide how many pairs there are, would
    find differences in the wide ones that do not exist. The choice looks at no ratio.
    """
    of_way = {way: {launch: pair for launch, pair in pairs.items() if pair.way == way} for way in WAYS}
    there = [found for found in of_way.values() if found]
    return next((found for found in there if len(found) >= least), there[0] if there else {})


def typical(launch: LaunchMeasures) -> bool:
    """Return whether `launch` can be compared by its typical pass: it has enough passes, fixed by `auto`."""
    return launch.automatic and len(launch.passes) >= MIN_PASSES


def typical_value(metric: MetricName, launch: LaunchMeasures) -> float:
    """Return the trimmed geometric mean over the passes of `launch`, in the unit of `metric`."""
    return math.exp(trimmed_mean(_logs(metric, launch)))


def by_round(metric: MetricName, launch: LaunchMeasures) -> dict[int, float]:
    """Return the logarithm of `metric` in each pass of `launch`, by its round."""
    logs = _logs(metric, launch)
    return {each.round: log for each, log in zip(launch.passes, logs, strict=True) if each.round is not None}


def has_idle_pass(metric: MetricName, launch: LaunchMeasures) -> bool:
    """Return whether some pass of `launch` has a value of `metric` that has no logarithm: nothing was generated."""
    of_passes = METRICS[metric].of_passes
    return of_passes is not None and any(not of_passes([each]) > 0 for each in launch.passes)


def ratio_of_totals(metric: MetricName, pairs: Iterable[tuple[LaunchMeasures, LaunchMeasures]]) -> float | None:
    """Return own over the baseline's value of `metric`, over all passes of `pairs` (own, baseline's) together.

    Of a throughput that is the ratio of the total times per token, where every second counts, also those of passes that
    a typical ratio leaves out. Of launches of one block it is over the rounds that both have. None where a pass has no
    value of the metric.
    """
    of_passes, sides = METRICS[metric].of_passes, [_passes(*launches) for launches in pairs]
    if of_passes is None or not sides:
        return None
    own, theirs = ([each for passes in sides for each in passes[side]] for side in (0, 1))
    return of_passes(own) / of_passes(theirs)


def _passes(own: LaunchMeasures, other: LaunchMeasures) -> tuple[Sequence[Iteration], Sequence[Iteration]]:
    """Return the passes of both that can be compared: of one block those of the rounds that both have."""
    if own.block is None or own.block != other.block:
        return own.passes, other.passes
    both = {each.round for each in own.passes} & {each.round for each in other.passes}
    mine, theirs = ([each for each in side.passes if each.round in both] for side in (own, other))
    return mine, theirs


def partners(
    own: Iterable[LaunchMeasures], theirs: Iterable[LaunchMeasures]
) -> dict[int, tuple[LaunchMeasures, LaunchMeasures]]:
    """Return the launches that both sides have, by their index."""
    there: Mapping[int, LaunchMeasures] = {launch.launch: launch for launch in theirs}
    found = {launch.launch: (launch, there[launch.launch]) for launch in own if launch.launch in there}
    return dict(sorted(found.items()))


def _logs(metric: MetricName, launch: LaunchMeasures) -> list[float]:
    of_passes = METRICS[metric].of_passes
    assert of_passes is not None
    return [math.log(of_passes([each])) for each in launch.passes]
