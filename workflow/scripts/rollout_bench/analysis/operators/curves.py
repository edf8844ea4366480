"""How long a call of a linear layer takes over numbers of tokens, and how much faster one quant is than another.

Pure functions on arrays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from rollout_bench.analysis.paired import NO_SPREAD, ratio_interval
from rollout_bench.analysis.saturation import t_interval
from rollout_bench.analysis.statistics import Array
from rollout_bench.analysis.unpaired import welch_interval

RESAMPLES = 2000
"""Resamples of the rounds of a launch."""

Over = Literal["launches", "rounds", "nothing"]
"""What an interval is over: launches; the rounds of the one launch there is; or there is none."""


@dataclass(frozen=True)
class Curve:
    """Times of one thing over numbers of tokens, rising: `rounds` has by launch its rounds [rounds, tokens], seconds.

    Rounds of a launch may be any number, and each went over all numbers of tokens.
    """

    tokens: tuple[int, ...]
    rounds: Mapping[int, Array]

    @property
    def by_launch(self) -> dict[int, Array]:
        """The median over the rounds of each launch [tokens], in seconds: one disturbed round hardly moves it."""
        return {launch: np.median(values, axis=0) for launch, values in sorted(self.rounds.items())}

    def at(self, tokens: tuple[int, ...]) -> Curve:
        """The same at some of its numbers of tokens."""
        places = [self.tokens.index(each) for each in tokens]
        return Curve(tokens, {launch: values[:, places] for launch, values in self.rounds.items()})


@dataclass(frozen=True)
class Estimate:
    """A value for each number of tokens, each field [tokens], with interval; `low` and `high` NaN where `over` is
    "nothing".
    """

    value: Array
    low: Array
    high: Array
    over: Over


def seconds(curve: Curve, confidence: float) -> Estimate:
    """Mean over launches of the median over rounds, seconds, with Student's interval over launches.

    With one launch the interval is that of its median over rounds: order statistics by a bootstrap of the rounds
    (Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics 7, 1979). It knows nothing of
    what differs from launch to launch.
    """
    medians = np.array(list(curve.by_launch.values()))
    value = medians.mean(axis=0)
    if len(medians) > 1:
        ends = np.array([t_interval(column, confidence) for column in medians.T])
        return Estimate(value, ends[:, 0], ends[:, 1], "launches")
    (rounds,) = curve.rounds.values()
    if len(rounds) < 3:
        return Estimate(value, *_none(value), "nothing")
    low, high = _ends(_resampled_medians(rounds, 0), confidence)
    return Estimate(value, low, high, "rounds")


def speedup(own: Curve, baseline: Curve, confidence: float) -> Estimate:
    """How many times faster `own` is than `baseline`, at the same numbers of tokens: baseline's time over its own.

    Launches that both have, two or more, are compared in pairs (`paired.ratio_interval`), others as two sides
    (`unpaired.welch_interval`). Where a side has one launch, the interval is over rounds: the bootstrap of `seconds`,
    of both sides apart.

    Raises:
        ValueError: the numbers of tokens differ.
    """
    if own.tokens != baseline.tokens:
        raise ValueError("the curves have other numbers of tokens")
    mine, theirs = own.by_launch, baseline.by_launch
    both = sorted(mine.keys() & theirs.keys())
    if len(both) > 1:
        logs = np.log([theirs[launch] for launch in both]) - np.log([mine[launch] for launch in both])
        value = np.exp(logs.mean(axis=0))
        if (logs.std(axis=0, ddof=1) < NO_SPREAD).any():  # copies of one launch, of which nothing can be inferred
            return Estimate(value, *_none(value), "nothing")
        found = ratio_interval(logs.T, confidence)
        return Estimate(found.ratio, found.low, found.high, "launches")
    first, second = (np.log(list(side.values())) for side in (theirs, mine))
    value = np.exp(first.mean(axis=0) - second.mean(axis=0))
    if min(len(first), len(second)) > 1:
        if any((side.std(axis=0, ddof=1) < NO_SPREAD).any() for side in (first, second)):
            return Estimate(value, *_none(value), "nothing")
        apart = welch_interval(first.T, second.T, confidence)
        return Estimate(apart.ratio, apart.low, apart.high, "launches")
    launch = both[0] if both else None
    sides = [_rounds_of(curve, launch) for curve in (baseline, own)]
    if min(map(len, sides)) < 3:
        return Estimate(value, *_none(value), "nothing")
    resampled = [_resampled_medians(rounds, number) for number, rounds in enumerate(sides)]
    low, high = _ends(resampled[0] / resampled[1], confidence)
    # With more launches on one side than on the other the estimate may lie beside what one launch of each says.
    return Estimate(value, np.minimum(low, value), np.maximum(high, value), "rounds")


def summed(curves: Mapping[object, Curve], times: Mapping[object, int]) -> Curve:
    """The sum of `curves`, each `times` so often, round by round: all have the same tokens and launches.

    Rounds that not all curves have are left out.
    """
    first = next(iter(curves.values()))
    launches = set.intersection(*(set(curve.rounds) for curve in curves.values()))
    totals: dict[int, Array] = {}
    for launch in sorted(launches):
        length = min(len(curve.rounds[launch]) for curve in curves.values())
        totals[launch] = np.sum([times[name] * curve.rounds[launch][:length] for name, curve in curves.items()], axis=0)
    return Curve(first.tokens, totals)


def _rounds_of(curve: Curve, launch: int | None) -> Array:
    """The rounds of `launch`, or of the first one."""
    return curve.rounds[min(curve.rounds) if launch is None else launch]


def _resampled_medians(rounds: Array, seed: int) -> Array:
    """Medians of `RESAMPLES` resamples [resamples, tokens] of `rounds` [rounds, tokens], whole rounds at a time."""
    random = np.random.default_rng(seed)
    chosen = random.integers(0, len(rounds), (RESAMPLES, len(rounds)))
    medians: Array = np.median(rounds[chosen], axis=1)
    return medians


def _ends(values: Array, confidence: float) -> tuple[Array, Array]:
    """The interval between equal tails of `values` [resamples, tokens]."""
    low, high = np.quantile(values, [0.5 - confidence / 2, 0.5 + confidence / 2], axis=0)
    return low, high


def _none(like: ArrayLike) -> tuple[Array, Array]:
    nothing = np.full_like(np.asarray(like, dtype=float), np.nan)
    return nothing, nothing
