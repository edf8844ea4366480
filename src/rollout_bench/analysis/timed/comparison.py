"""The comparison of an experiment with its baseline: speed-up, interval, verdict."""

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from rollout_bench.analysis.stats.blocks import (
    Contrasts,
    contrasts,
    half_widths,
    p_value,
    step_down,
)
from rollout_bench.analysis.stats.intervals import (
    NO_SPREAD,
    Array,
    mean,
    ratio_interval,
    standard_deviation,
    welch_interval,
)
from rollout_bench.analysis.stats.two_stages import FIRST, FirstStage, TwoStages
from rollout_bench.analysis.timed.launches import LaunchMeasures, values_of
from rollout_bench.analysis.timed.pairs import (
    Way,
    has_undefined_log,
    most_precise_pairs,
    pair_of,
    paired_launches,
    ratio_of_totals,
    typical,
    typical_value,
)
from rollout_bench.numbers.generation import ENERGY
from rollout_bench.numbers.registry import NUMBERS, MetricName
from rollout_bench.plan.config import ComparisonSettings

Verdict = Literal["faster", "slower", "irrelevant", "undetected", "unknown"]

MARKS: dict[Verdict, str] = {"faster": "^", "slower": "v", "irrelevant": "~", "undetected": "~", "unknown": "?"}
"""Sign of each verdict in tables."""

FOUND: tuple[Verdict, ...] = ("faster", "slower", "irrelevant")
"""Verdicts that report a difference."""

MIN_PAIRS = 2
"""Minimum pairs of launches for an interval; for unpaired sides, minimum launches of each side."""

BOUND = 0.05
"""Limit of a difference that an inconclusive comparison excludes, if its whole interval is closer to 1."""

FEW_PAIRS = 8
"""Below this number of pairs, a mode that an engine chooses at its start may be missed; single pairs are shown."""

MODE_SHARE = 0.3
"""Share of starts in a mode for which a summary reports the chance of missing it."""


Values = Mapping[int, float]
"""A metric by launch index."""

Stop = TwoStages | None
"""Rule for the number of launches: `TwoStages` if the spread of the first launches decides it, None if it is fixed."""


@dataclass(frozen=True)
class Side:
    """One side of a comparison of launches that were not interleaved.

    `value` is the geometric mean of its launches, in the metric's unit.
    """

    launches: int
    value: float


@dataclass(frozen=True)
class Comparison:
    """Comparison of an experiment with its baseline in one metric.

    `pairs` has the ratio for each launch index that both sides have, and `speedup` is their geometric mean (above 1:
    better than the baseline). `low` and `high` are its interval. It is simultaneous with the intervals of all
    experiments that are compared with the same baseline in the same way. If the sides were not interleaved, `pairs` is
    empty, `sides` are the own side and the baseline's, and `speedup` is the ratio of their values.

    `p_value` is for "no difference", adjusted for all comparisons with the same baseline. `p_adjusted` is adjusted for
    all comparisons of the table.

    `first_stage` is the result of the first launches for the number of launches; None if that number does not depend on
    them. `unpaired` and `baseline_unpaired` count launches without a partner of their index. `is_baseline` marks the
    baseline itself. `verdict` is None if nothing can be compared. `reason` explains a missing verdict, or an unknown
    one that has another cause than too few launches.

    `ways` is how the ratios were computed, the same way for all pairs. If they come from iterations, `of_totals` is the
    ratio of all iterations of these pairs together (above 1: better). It includes iterations that a typical ratio
    leaves out. `other_way` are launches whose pairs were computed in another way and therefore do not count.
    """

    is_baseline: bool = False
    speedup: float | None = None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    p_adjusted: float | None = None
    first_stage: FirstStage | None = None
    pairs: Values = field(default_factory=dict)
    sides: tuple[Side, Side] | None = None
    unpaired: int = 0
    baseline_unpaired: int = 0
    verdict: Verdict | None = None
    reason: str = ""
    ways: frozenset[Way] = frozenset()
    of_totals: float | None = None
    other_way: Mapping[int, Way] = field(default_factory=dict)

    @property
    def only_among_all(self) -> bool:
        """Whether the interval excludes 1, and only the adjustment for all comparisons of the table leaves it open."""
        excludes = self.low is not None and self.high is not None and not self.low <= 1.0 <= self.high
        return self.verdict == "undetected" and excludes

    @property
    def is_bounded(self) -> bool:
        """Whether no difference was found, and the whole interval is closer to 1 than `BOUND`, a factor either way."""
        if self.verdict != "undetected" or self.low is None or self.high is None:
            return False
        return 1 / (1 + BOUND) <= self.low <= 1.0 <= self.high <= 1 + BOUND

    @property
    def of_passes(self) -> bool:
        """Whether some ratios come from typical iterations instead of whole launches."""
        return bool(self.ways - {"launches"})

    @property
    def half_width(self) -> float | None:
        """Half of the interval, as a log ratio; None without one."""
        if self.low is None or self.high is None or not (self.low > 0 and math.isfinite(self.high)):
            return None
        return (math.log(self.high) - math.log(self.low)) / 2

    @property
    def carried_by_few(self) -> bool:
        """Whether the ratio of all iterations differs from the typical ratio by more than half of the interval."""
        if self.of_totals is None or self.speedup is None or self.half_width is None:
            return False
        return abs(math.log(self.of_totals / self.speedup)) > self.half_width

    @property
    def launches_used(self) -> tuple[int, int]:
        """Number of launches used from the own side and from the baseline."""
        if self.sides:
            return self.sides[0].launches, self.sides[1].launches
        return len(self.pairs), len(self.pairs)

    @property
    def launches_missing(self) -> int:
        """Launches missing for a verdict: of both sides if they are paired, else of the smaller side."""
        return max(0, MIN_PAIRS - min(self.launches_used))


def compare_launches(
    own: Sequence[LaunchMeasures],
    theirs: Sequence[LaunchMeasures],
    metric: MetricName,
    confidence: float,
    stop: Stop = None,
) -> Comparison:
    """Compare valid interleaved launches in `metric` with the pairs from `pairs.pair_of`, without a verdict.

    `judge` adds the verdict, and the interval if the number of pairs depends on `stop` in two stages. Values that are
    zero, negative or not finite make the whole comparison unknown: their cause may also have affected other launches.
    Only pairs of one way count (`pairs.of_one_way`). For times of sequences, whole launches are compared if an
    iteration of any launch has no value. Leaving out such launches would select them by the compared value.
    """
    sides = [[launch for launch in side if metric in launch.values] for side in (own, theirs)]
    wrong = _wrong(*(values_of(metric, side) for side in sides))
    if wrong:
        return wrong
    both = paired_launches(*sides)
    idle = [launch for launch, pair in both.items() if any(has_undefined_log(metric, side) for side in pair)]
    if idle and NUMBERS[metric].of != "sequences":
        lacks = "has no energy" if NUMBERS[metric].table == ENERGY else "generated nothing"
        reason = f"in launch {idle[0]} a pass, its own or its baseline's, {lacks}"
        return Comparison(verdict="unknown", reason=reason)
    better = 1 if NUMBERS[metric].better == "higher" else -1
    pair_or_none = {launch: pair_of(metric, *sides_of, whole=bool(idle)) for launch, sides_of in both.items()}
    pairs = {launch: pair for launch, pair in pair_or_none.items() if pair is not None}
    chosen = most_precise_pairs(pairs, MIN_PAIRS)
    ways = frozenset(pair.way for pair in chosen.values())
    totals = ratio_of_totals(metric, [both[launch] for launch in chosen]) if ways - {"launches"} else None
    unpaired, baseline_unpaired = (len(side) - len(pairs) for side in sides)
    comparison = Comparison(
        unpaired=unpaired,
        baseline_unpaired=baseline_unpaired,
        ways=ways,
        of_totals=None if totals is None else totals**better,
        other_way={launch: pair.way for launch, pair in pairs.items() if launch not in chosen},
    )
    logs = {launch: better * pair.log_ratio for launch, pair in chosen.items()}
    return with_pairs(comparison, logs, confidence, stop)


def with_pairs(comparison: Comparison, by_launch: Mapping[int, float], confidence: float, stop: Stop) -> Comparison:
    """Return `comparison` with the pairs of these log ratios by launch, above 0 where its own side is better."""
    both, logs = list(by_launch), list(by_launch.values())
    comparison = replace(
        comparison,
        speedup=math.exp(mean(logs)) if logs else None,
        pairs={launch: math.exp(log) for launch, log in by_launch.items()},
        verdict="unknown",
        reason="" if both else "no launch has a partner of the same index in the baseline",
    )
    if len(both) < MIN_PAIRS:
        return comparison
    # Pairs that decide the number of pairs must differ as much as all pairs.
    deciding = logs if stop is None else logs[:FIRST]
    if standard_deviation(deciding) < NO_SPREAD:
        which = "all" if len(deciding) == len(logs) else f"the first {len(deciding)}"
        return replace(comparison, reason=f"{which} pairs have the very same ratio, as copies of one launch would")
    interval = ratio_interval(logs, confidence)
    return replace(comparison, low=float(interval.low), high=float(interval.high), p_value=float(interval.p_value))


def compare_launches_apart(
    own: Sequence[LaunchMeasures], theirs: Sequence[LaunchMeasures], metric: MetricName, confidence: float
) -> Comparison:
    """Compare valid launches in `metric` that were not interleaved: all of them count, whatever their index.

    Typical iterations are compared if every launch of both sides has them (`pairs.typical`), else the launches' values.
    """
    of = NUMBERS[metric]
    sides = [[launch for launch in side if metric in launch.values] for side in (own, theirs)]
    alike = bool(of.numerator) and all(
        typical(one) and not has_undefined_log(metric, one) for side in sides for one in side
    )
    values, baseline = (
        {each.launch: typical_value(metric, each) for each in side} if alike else values_of(metric, side)
        for side in sides
    )
    wrong = _wrong(values, baseline)
    if wrong:
        return wrong
    logs, others = ([math.log(value) for _, value in sorted(side.items())] for side in (values, baseline))
    better = 1 if of.better == "higher" else -1
    comparison = Comparison(
        speedup=math.exp(better * (mean(logs) - mean(others))),
        sides=(Side(len(logs), math.exp(mean(logs))), Side(len(others), math.exp(mean(others)))),
        verdict="unknown",
        ways=frozenset({"passes" if alike else "launches"}),
    )
    if comparison.launches_missing:
        return comparison
    for each, whose in ((logs, "it has"), (others, "its baseline has")):
        if standard_deviation(each) < NO_SPREAD:
            return replace(comparison, reason=f"{whose} the very same value in all launches, as copies of one would")
    interval = welch_interval([better * log for log in logs], [better * log for log in others], confidence)
    return replace(comparison, low=float(interval.low), high=float(interval.high), p_value=float(interval.p_value))


def _wrong(values: Values, baseline: Values) -> Comparison | None:
    if not values or not baseline:
        return Comparison(reason="not measured" if not values else "its baseline is not measured")
    for side, whose in ((values, "it has"), (baseline, "its baseline has")):
        wrong = [launch for launch, value in sorted(side.items()) if not (math.isfinite(value) and value > 0)]
        if wrong:
            reason = f"{whose} a launch ({wrong[0]}) whose measurement is zero or no number"
            return Comparison(verdict="unknown", reason=reason)
    return None


def judge(
    family: Sequence[Comparison],
    settings: ComparisonSettings,
    stop: Stop = None,
    baselines: Sequence[Hashable] | None = None,
) -> list[Comparison]:
    """Return the comparisons with their verdicts, in the same order; all are of one metric in one table.

    `baselines` has the baseline of each comparison; None if each has its own. Comparisons with one baseline whose
    pairs are of one way are judged as blocks, with one spread and one critical value (`stats.blocks`).
    `blocks.step_down` limits the chance of a false finding among all of them. `stop` is as in `compare_launches`.
    """
    tables: dict[Hashable, list[int]] = {}
    for number, comparison in enumerate(family):
        if comparison.p_value is not None:
            alone = baselines is None or comparison.sides is not None
            table = (number,) if alone or baselines is None else (baselines[number], comparison.ways)
            tables.setdefault(table, []).append(number)
    judged, p_values = list(family), list[float]()
    for numbers in tables.values():
        if family[numbers[0]].sides is None and (len(numbers) > 1 or stop is not None):
            for number, with_interval in zip(
                numbers, _together([family[n] for n in numbers], settings, stop), strict=True
            ):
                judged[number] = with_interval
        p_values += [judged[number].p_value or 0.0 for number in numbers]
    order = [number for numbers in tables.values() for number in numbers]
    labels = [table for table, numbers in enumerate(tables.values()) for _ in numbers]
    for number, p_adjusted in zip(order, step_down(p_values, labels), strict=True):
        judged[number] = _with_verdict(judged[number], float(p_adjusted), settings)
    return judged


def _together(comparisons: Sequence[Comparison], settings: ComparisonSettings, stop: Stop) -> Iterator[Comparison]:
    """Yield comparisons with one baseline with their simultaneous intervals and p values.

    In two stages there are two estimates, and a conclusion must hold for each of them.
    """
    estimates, first_stages = estimated(log_ratios(comparisons), stop)
    halves = np.max([half_widths(estimate, 1 - settings.confidence) for estimate in estimates], axis=0)
    with np.errstate(over="ignore"):
        lows, highs = np.exp(estimates[0].log_ratio - halves), np.exp(estimates[0].log_ratio + halves)
    for place, comparison in enumerate(comparisons):
        p = max(p_value(estimate, place) for estimate in estimates)
        low, high, first_stage = float(lows[place]), float(highs[place]), first_stages[place]
        yield replace(comparison, low=low, high=high, p_value=p, first_stage=first_stage)


def estimated(logs: Array, stop: Stop) -> tuple[Sequence[Contrasts], Sequence[FirstStage | None]]:
    """Return the estimates from log ratios [blocks, comparisons], and the first stage of each comparison."""
    return ([contrasts(logs)], [None] * logs.shape[1]) if stop is None else stop.of(logs)


def log_ratios(comparisons: Sequence[Comparison]) -> Array:
    """Return log ratios [blocks, comparisons], NaN if a comparison has no pair of that launch."""
    launches = sorted({launch for comparison in comparisons for launch in comparison.pairs})
    ratios = [[comparison.pairs.get(launch, math.nan) for comparison in comparisons] for launch in launches]
    return np.asarray(np.log(np.reshape(ratios, (len(launches), len(comparisons)))))


def _with_verdict(comparison: Comparison, p_adjusted: float, settings: ComparisonSettings) -> Comparison:
    assert comparison.speedup is not None
    # The distance is a ratio in both directions, so swapping the sides mirrors the verdict.
    far = max(comparison.speedup, 1 / comparison.speedup) >= 1 + settings.relevant_difference
    verdict: Verdict = "undetected"
    if p_adjusted < 1 - settings.confidence:
        verdict = "irrelevant" if not far else "faster" if comparison.speedup > 1 else "slower"
    return replace(comparison, p_adjusted=p_adjusted, verdict=verdict)
