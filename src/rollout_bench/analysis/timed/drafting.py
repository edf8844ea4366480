"""Accepted length from which speculative decoding pays: the length at which its speed-up is 1."""

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from rollout_bench.analysis.stats.lines import crossing
from rollout_bench.analysis.timed.comparison import MIN_PAIRS, Comparison
from rollout_bench.analysis.timed.rows import Row
from rollout_bench.contracts.drafts import ARGUMENT, LENGTH, RATES, WITHOUT_WEIGHTS, Drafts, drafts_of
from rollout_bench.core.mappings import grouped
from rollout_bench.numbers.registry import MetricName

PER_STEP, DRAFTED = "accepted_length", "drafted_share"
"""Numbers: tokens of a step, and the share of steps with a draft."""

TIME: tuple[MetricName, ...] = ("output_tokens_per_s", "output_tokens_per_s_per_device", "step_time_s")
"""Metrics with the speed-up of a whole iteration; the first one that is compared counts."""

TAIL: tuple[MetricName, ...] = ("tail_s",)
"""Metric with the speed-up of an iteration's end, in which few sequences are left."""

Ends = tuple[float, float, float]
"""An estimate, and the lower and the upper end of its interval."""


@dataclass(frozen=True)
class BreakEven:
    """Accepted length from which drafts pay, of one or several rows with equal drafts and one baseline.

    Attributes:
        rows: experiments with these drafts; several if they differ only in the synthetic acceptance.
        drafts: how they are made; of several rows those of the first.
        share: share of the steps that have a draft; 1 of methods with a draft model.
        at: estimated accepted length at which the speed-up is 1.
        low: lower end of its interval.
        high: upper end of its interval.
        between: accepted lengths that it was interpolated between; None if it is proportional to a single one.
    """

    rows: tuple[Row, ...]
    drafts: Drafts
    share: float
    at: float
    low: float
    high: float
    between: tuple[float, float] | None

    @property
    def unknown(self) -> bool:
        """Whether drafts may pay at any accepted length, or at none."""
        most = math.inf if self.drafts.tokens is None else self.drafts.tokens + 1
        return self.share == 0 or (self.low <= 1 and self.high >= most)

    @property
    def never(self) -> bool:
        """Whether even drafts that are all accepted would not pay."""
        return self.drafts.tokens is not None and self.low > self.drafts.tokens + 1

    @property
    def always(self) -> bool:
        """Whether drafts pay although none of their tokens is accepted."""
        return self.high < 1


def break_evens(others: Sequence[Row], confidence: float, metrics: Sequence[MetricName] = TIME) -> list[BreakEven]:
    """Return from which accepted length drafts pay, for each kind of drafts among `others`, which share a baseline.

    A step of the target costs the same whatever it accepts. So throughput is proportional to the accepted length B, and
    at a speed-up s the break-even is B / s; the interval is that of s. Prefill does not become shorter, nor does the
    end of a step in which few sequences are left. If they are a share p of the baseline's time, B / s is off by p of
    the distance between B and the break-even, toward B. It never is on the other side of B.

    Without a draft model only a share f of the steps has a draft, where the text repeats. With B of all steps, these
    have to have 1 + (B / s - 1) / f tokens: each draft then gains the time that it costs. Drafts whose tokens depend on
    the size of the batch have steps of several costs, so they have no break-even.

    If two measured lengths of equal drafts have speed-ups on both sides of 1, the time per token is interpolated
    linearly in 1 / B between these two. That has no such bias. The interval is Fieller's, from pairs of launches.

    Args:
        others: rows that are compared with the same baseline.
        confidence: of an interval from several lengths, together with the other rows.
        metrics: the first one that is compared counts.
    """
    known = [
        (row, found)
        for row in others
        if PER_STEP in row.values and _only_own(row) and (found := _comparison(row, metrics)) is not None
    ]
    simultaneous = 1 - (1 - confidence) / max(1, len(others))
    alike = grouped((_kind(row), (row, row.values[PER_STEP], found)) for row, found in known).values()
    return [each for sides in alike if (each := _break_even(sides, simultaneous)) is not None]


def own_drafts(row: Row) -> Drafts | None:
    """Return the drafts of the engines of `row`; None without any, or if its records do not say."""
    return drafts_of(row.experiment.records[0].spec.engine.args)


def _only_own(row: Row) -> bool:
    """Return whether the engines of `row` draft, always the same tokens, and those of its baseline do not."""
    own, base = own_drafts(row), row.against.other
    if own is None or own.by_batch or base is None:
        return False
    return drafts_of(base.records[0].spec.engine.args) is None


def _kind(row: Row) -> str:
    """Return a text that rows have in common whose engines differ only in the accepted length that is asked for."""
    args = row.experiment.records[0].spec.engine.args
    drafts = {key: value for key, value in args[ARGUMENT].items() if key not in (LENGTH, RATES)}
    kind = [row.experiment.quant, row.experiment.point_label, {**args, ARGUMENT: drafts}]
    return json.dumps(kind, sort_keys=True, default=str)


def _comparison(row: Row, metrics: Sequence[MetricName]) -> Comparison | None:
    """Return the comparison by the first of `metrics` that has one; None if it has no interval."""
    found = next((row.comparisons[metric] for metric in metrics if metric in row.comparisons), None)
    return found if found and found.speedup and found.low and found.high else None


def _break_even(sides: Sequence[tuple[Row, float, Comparison]], confidence: float) -> BreakEven | None:
    """Return the break-even of equal drafts: of rows, each with its accepted length and its comparison."""
    sides = sorted(sides, key=lambda side: side[1])
    drafts = own_drafts(sides[0][0])
    assert drafts is not None, "only rows with drafts are grouped"
    of = tuple(row for row, _, _ in sides)
    for (slow, length, one), (fast, longer, other) in itertools.pairwise(sides):
        if (one.speedup or 0) < 1 <= (other.speedup or 0) and length < longer:
            ends = _between(slow, one, fast, other, confidence)
            return None if ends is None else BreakEven(of, drafts, 1, *ends, between=(length, longer))
    # of single lengths the one nearest to the break-even has the least bias
    row, length, nearest = min(sides, key=lambda side: abs(math.log(side[2].speedup or 1)))
    share = row.values[DRAFTED] if drafts.method in WITHOUT_WEIGHTS else 1
    ratios = (nearest.speedup, nearest.high, nearest.low)
    at, low, high = (1 + (length / ratio - 1) / share if share else math.nan for ratio in ratios if ratio)
    return BreakEven(of, drafts, share, at, low, high, between=None)


def _between(slow: Row, one: Comparison, fast: Row, other: Comparison, confidence: float) -> Ends | None:
    """Return the accepted length at which the time per token is the baseline's, with its interval; None without one.

    Each launch that both rows have gives a line over the inverse accepted length.
    """
    lengths = [{launch.launch: launch.values[PER_STEP] for launch in row.used} for row in (slow, fast)]
    both = sorted(one.pairs.keys() & other.pairs.keys() & lengths[0].keys() & lengths[1].keys())
    if len(both) < MIN_PAIRS or any(lengths[0][launch] == lengths[1][launch] for launch in both):
        return None
    intercepts, slopes = [], []
    for launch in both:
        x, x_other = 1 / lengths[0][launch], 1 / lengths[1][launch]
        time, time_other = 1 / one.pairs[launch], 1 / other.pairs[launch]
        slope = (time - time_other) / (x - x_other)
        slopes.append(slope)
        intercepts.append(time - 1 - slope * x)
    found = crossing(intercepts, slopes, confidence)
    if found.at is None or found.below is None or found.above is None or not found.below[1]:
        return None
    return 1 / found.at, 1 / found.above[0], 1 / found.below[1]
