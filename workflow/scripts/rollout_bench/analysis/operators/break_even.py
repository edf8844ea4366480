"""From how many tokens on a quant is faster, or up to how many. Pure functions on arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from rollout_bench.analysis.operators.curves import Estimate
from rollout_bench.analysis.statistics import Array

Kind = Literal["from", "until", "between", "always", "never", "unclear"]


@dataclass(frozen=True)
class BreakEven:
    """Where one quant overtakes another over numbers of tokens.

    `kind`: faster "from" `at` tokens on (and at all larger numbers); faster "until" `at` and slower from there on;
    faster only "between" `at` and `until`; "always" or "never" faster at all numbers measured, but for what may be
    chance; or "unclear": nowhere does the interval exclude 1. `at` lies between two measured numbers, and `low` and
    `high` are the ends of its interval, None without one: 0 for one below the least number measured, infinity for one
    above the largest.
    `faster` and `slower` are the numbers of tokens at which the interval excludes 1, or, without intervals, at which
    the estimate is above or below 1.
    """

    kind: Kind
    at: float | None = None
    low: float | None = None
    high: float | None = None
    until: float | None = None
    faster: tuple[int, ...] = ()
    slower: tuple[int, ...] = ()


def break_even(tokens: Sequence[int], ratio: Estimate) -> BreakEven:
    """Where a quant with speed-ups `ratio` at `tokens`, rising, becomes and stays faster.

    Crossings are interpolated: the logarithm of the speed-up is taken as linear in the logarithm of the tokens between
    two measured numbers. The interval inverts the speed-ups' own: it ends where their bands cross 1, so it holds every
    number of tokens at which a speed-up of 1 can not be excluded beside the crossing (as Fieller's theorem does for
    ratios, Journal of the Royal Statistical Society B 16, 1954). The bands are pointwise.

    Raises:
        ValueError: not as many speed-ups as tokens, tokens that do not rise, or a speed-up that is not above 0.
    """
    places = np.log(np.asarray(tokens, dtype=float))
    values = np.asarray(ratio.value, dtype=float)
    if values.shape != places.shape or not places.size or (np.diff(places) <= 0).any():
        raise ValueError("speed-ups at rising numbers of tokens are wanted")
    if not (np.isfinite(values).all() and (values > 0).all()):
        raise ValueError("a speed-up is not above 0")
    logs = np.log(values)
    known = ratio.over != "nothing"
    with np.errstate(divide="ignore"):  # an interval that reaches down to 0
        low, high = (np.log(ratio.low), np.log(ratio.high)) if known else (logs, logs)
    faster, slower = (tuple(np.asarray(tokens)[chosen].tolist()) for chosen in (low > 0, high < 0))
    found = partial(BreakEven, faster=faster, slower=slower)
    if known and not faster and not slower:
        return found("unclear")
    if (logs > 0).all():
        return found("always")
    if (logs <= 0).all():
        return found("never")
    if logs[-1] > 0:
        ends = (faster_from(places, high), faster_from(places, low)) if known else (None, None)
        return found("from", faster_from(places, logs), *ends)
    if logs[0] > 0:
        ends = (faster_until(places, low), faster_until(places, high)) if known else (None, None)
        return found("until", faster_until(places, logs), *ends)
    if not faster:  # what lies above 1 in between does so by no more than chance
        return found("never")
    rises = int(np.argmax(logs > 0))
    falls = len(logs) - 1 - int(np.argmax(logs[::-1] > 0))
    begin, end = _crossing(places, logs, rises - 1), _crossing(places, logs, falls)
    return found("between", begin, until=end)


def faster_from(places: ArrayLike, logs: ArrayLike) -> float:
    """The least number of tokens from which on `logs` [n], at the logarithms `places` [n] of tokens, stay above 0.

    0 where they are above 0 everywhere, infinity where the last one is not.
    """
    x, y = np.asarray(places, dtype=float), np.asarray(logs, dtype=float)
    above = y > 0
    if above.all():
        return 0.0
    if not above[-1]:
        return math.inf
    return _crossing(x, y, int(np.flatnonzero(~above)[-1]))


def faster_until(places: ArrayLike, logs: ArrayLike) -> float:
    """The largest number of tokens up to which `logs` are above 0: 0 where the first is not, infinity where all are."""
    x, y = np.asarray(places, dtype=float), np.asarray(logs, dtype=float)
    above = y > 0
    if above.all():
        return math.inf
    if not above[0]:
        return 0.0
    return _crossing(x, y, int(np.flatnonzero(~above)[0]) - 1)


def ranges(tokens: Sequence[int], chosen: Sequence[int]) -> list[tuple[int, int]]:
    """`chosen` of the measured numbers of `tokens` as ranges of neighbours: (1, 8), (64, 64)."""
    places = sorted(tokens.index(each) for each in chosen)
    runs = [[place for _, place in run] for _, run in groupby(enumerate(places), lambda pair: pair[1] - pair[0])]
    return [(tokens[run[0]], tokens[run[-1]]) for run in runs]


def _crossing(places: Array, logs: Array, place: int) -> float:
    """Tokens at which the line from `place` to the next one crosses 0."""
    first, second = float(logs[place]), float(logs[place + 1])
    if not math.isfinite(first):
        return math.exp(float(places[place + 1]))
    if not math.isfinite(second):
        return math.exp(float(places[place]))
    share = first / (first - second)
    return math.exp(float(places[place]) + share * float(places[place + 1] - places[place]))
