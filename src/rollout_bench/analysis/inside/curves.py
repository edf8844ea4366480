"""How long linear layers take alone over numbers of tokens, and from how many on a quant is faster.

Pure functions on arrays.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from rollout_bench.analysis.stats.intervals import NO_SPREAD, Array, ratio_interval, t_interval, welch_interval
from rollout_bench.analysis.timed.experiments import Chosen, Selected
from rollout_bench.contracts.axes import Table, table_of
from rollout_bench.contracts.inside import LinearShape, Operators
from rollout_bench.contracts.modes import OPERATORS
from rollout_bench.contracts.record import Launched

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
        """Return the same at some of its numbers of tokens."""
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
    """Return how many times faster `own` is than `baseline`, at the same numbers of tokens.

    Baseline's time over its own.

    Launches that both have, two or more, are compared in pairs (`ratio_interval`), others as two sides
    (`welch_interval`). Where a side has one launch, the interval is over rounds: the bootstrap of `seconds`,
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
    """Return the sum of `curves`, each `times` so often, round by round: all have the same tokens and launches.

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
    return curve.rounds[min(curve.rounds) if launch is None else launch]


def _resampled_medians(rounds: Array, seed: int) -> Array:
    """Resample whole rounds of `rounds` [rounds, tokens]: the medians of `RESAMPLES` of them [resamples, tokens]."""
    random = np.random.default_rng(seed)
    chosen = random.integers(0, len(rounds), (RESAMPLES, len(rounds)))
    medians: Array = np.median(rounds[chosen], axis=1)
    return medians


def _ends(values: Array, confidence: float) -> tuple[Array, Array]:
    """Return the interval between equal tails of `values` [resamples, tokens]."""
    low, high = np.quantile(values, [0.5 - confidence / 2, 0.5 + confidence / 2], axis=0)
    return low, high


def _none(like: ArrayLike) -> tuple[Array, Array]:
    nothing = np.full_like(np.asarray(like, dtype=float), np.nan)
    return nothing, nothing


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
    """Return where a quant with speed-ups `ratio` at `tokens`, rising, becomes and stays faster.

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
    """Return the least number of tokens from which on `logs` [n], at the logarithms `places` [n], stay above 0.

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
    """Return the largest number of tokens up to which `logs` are above 0.

    0 where the first is not, infinity where all are.
    """
    x, y = np.asarray(places, dtype=float), np.asarray(logs, dtype=float)
    above = y > 0
    if above.all():
        return math.inf
    if not above[0]:
        return 0.0
    return _crossing(x, y, int(np.flatnonzero(~above)[0]) - 1)


def ranges(tokens: Sequence[int], chosen: Sequence[int]) -> list[tuple[int, int]]:
    """Return `chosen` of the measured numbers of `tokens` as ranges of neighbours: (1, 8), (64, 64)."""
    places = sorted(tokens.index(each) for each in chosen)
    runs = [[place for _, place in run] for _, run in groupby(enumerate(places), lambda pair: pair[1] - pair[0])]
    return [(tokens[run[0]], tokens[run[-1]]) for run in runs]


def _crossing(places: Array, logs: Array, place: int) -> float:
    """Return tokens at which the line from `place` to the next one crosses 0."""
    first, second = float(logs[place]), float(logs[place + 1])
    if not math.isfinite(first):
        return math.exp(float(places[place + 1]))
    if not math.isfinite(second):
        return math.exp(float(places[place]))
    share = first / (first - second)
    return math.exp(float(places[place]) + share * float(places[place + 1] - places[place]))


DEFAULT_BASELINE = "bf16"
"""Quant that the others are compared with where the baseline is not one of quants."""


@dataclass(frozen=True)
class ShapeComparison:
    """How the layers of one shape compare with the baseline's: speed-ups at `tokens`, and where they cross 1."""

    tokens: tuple[int, ...]
    speedup: Estimate
    break_even: BreakEven


@dataclass(frozen=True)
class OperatorsRun:
    """One experiment of operators mode with a valid launch.

    `label` is its quant, with the key where others have the same. `launches` are those that count: the valid ones.
    `curves` and `linears` are by the shape's name: its role, with features in and out where a role has several shapes.
    `against` has those shapes that the baseline has too, and is empty for the baseline itself and where `reason` says
    why there is none.
    """

    experiment: Selected[Launched]
    label: str
    launches: tuple[Operators, ...]
    linears: Mapping[str, LinearShape]
    curves: Mapping[str, Curve]
    confidence: float
    is_baseline: bool
    baseline: OperatorsRun | None = None
    against: Mapping[str, ShapeComparison] | None = None
    reason: str = ""

    @property
    def decode_batch(self) -> int:
        """Sequences that decode at once under its workload."""
        return self.launches[0].decode_batch

    @property
    def place(self) -> Table:
        """What runs that compare have in common."""
        return table_of(self.experiment)

    @property
    def seconds(self) -> dict[str, Estimate]:
        """Seconds per call of each shape at its tokens."""
        return {name: seconds(curve, self.confidence) for name, curve in self.curves.items()}


def runs_of(inside: Sequence[Chosen], baseline: Mapping[str, str], confidence: float) -> list[OperatorsRun]:
    """Return the runs of those of `inside` that are of operators mode and have a valid launch, in their order.

    `baseline` (axis -> value) may name the quant to compare with; other axes say nothing here.
    """
    quant = baseline.get("quant", DEFAULT_BASELINE)
    measured = [each for each in inside if each.experiment.mode == OPERATORS.name]
    without = {each.table: each.reason for each in measured if each.reason and each.experiment.quant == quant}
    runs = [_run(each, quant, confidence) for each in measured if not each.reason]
    return [_compared(run, runs, quant, without.get(run.place, "")) for run in runs]


def _run(each: Chosen, baseline: str, confidence: float) -> OperatorsRun:
    used = tuple(record for record in each.experiment.records if isinstance(record, Operators))
    linears = _named(used[0].linears)
    curves = {name: curve for name, shape in linears.items() if (curve := _curve(used, shape)) is not None}
    return OperatorsRun(
        experiment=each.experiment,
        label=each.label,
        launches=used,
        linears=linears,
        curves=curves,
        confidence=confidence,
        is_baseline=each.experiment.quant == baseline,
    )


def _named(shapes: Sequence[LinearShape]) -> dict[str, LinearShape]:
    roles = Counter(shape.role for shape in shapes)
    return {
        shape.role if roles[shape.role] == 1 else f"{shape.role} {shape.in_features}x{shape.out_features}": shape
        for shape in shapes
    }


def _curve(records: Sequence[Operators], shape: LinearShape) -> Curve | None:
    return curve_of(
        {
            record.launch: {
                point.tokens: point.seconds_per_call
                for point in record.points
                if (point.role, point.in_features, point.out_features)
                == (shape.role, shape.in_features, shape.out_features)
            }
            for record in records
        }
    )


def curve_of(by_launch: Mapping[int, Mapping[int, Sequence[float]]]) -> Curve | None:
    """Return the times that each launch has by tokens, at the numbers of tokens that all have; None without any."""
    tokens = tuple(sorted(set.intersection(*(set(points) for points in by_launch.values()))))
    if not tokens:
        return None
    return Curve(
        tokens, {launch: np.array([points[each] for each in tokens]).T for launch, points in by_launch.items()}
    )


def _compared(run: OperatorsRun, runs: Sequence[OperatorsRun], quant: str, without: str) -> OperatorsRun:
    """Return `run` beside its baseline; `without` says why one that was measured has no valid launch."""
    if run.is_baseline:
        return run
    candidates = [other for other in runs if _beside(other) == _beside(run) and other.is_baseline]
    alike = [other for other in candidates if _comparable(other) == _comparable(run)]
    if not candidates:
        return replace(run, reason=f"{quant}: {without}" if without else f"{quant} is not measured for it")
    if len(alike) != 1:
        how = "on another machine or with other settings" if not alike else f"{len(alike)} times"
        return replace(run, reason=f"{quant} is measured {how}")
    other = alike[0]
    against = {}
    for name, curve in run.curves.items():
        theirs = other.curves.get(name)
        if theirs is None or _shape(run.linears[name]) != _shape(other.linears[name]):
            continue
        tokens = tuple(each for each in curve.tokens if each in theirs.tokens)
        if tokens:
            ratio = speedup(curve.at(tokens), theirs.at(tokens), run.confidence)
            against[name] = ShapeComparison(tokens, ratio, break_even(tokens, ratio))
    return replace(run, baseline=other, against=against)


def _beside(run: OperatorsRun) -> tuple[object, ...]:
    return run.place, run.experiment.setting


def _comparable(run: OperatorsRun) -> tuple[object, ...]:
    """Return what must be the same for times of kernels to compare; how long they were measured need not be."""
    engine, where = run.launches[0].spec.engine, run.launches[0].environment
    parallel = {name: value for name, value in engine.args.items() if name.endswith("parallel_size")}
    graphs = engine.args.get("enforce_eager"), engine.args.get("compilation_config")
    machine = where.device_model, where.cpu_cores, run.launches[0].threads
    return engine.name, engine.version, engine.plugins, engine.environment, parallel, graphs, machine


def _shape(shape: LinearShape) -> tuple[int, int]:
    return shape.in_features, shape.out_features
