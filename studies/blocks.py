"""Many launches cut into comparisons of a few pairs each, as a user with so few launches would have made them."""

from __future__ import annotations

import math

import numpy as np
from kept import SETTINGS
from noise import Array
from repeats import Launches

from rollout_bench.analysis.timed.comparison import Comparison, judge, with_pairs
from rollout_bench.numbers.registry import NUMBERS, MetricName

Side = tuple[str, str]
"""Quant and workload."""

SIZE = 3
"""Pairs in a comparison: what the default config measures."""


def comparisons(
    launches: Launches, metric: MetricName, side: Side, baseline: Side, size: int = SIZE
) -> list[Comparison]:
    """Return the comparisons of `side` with `baseline`, with their verdicts.

    One for each `size` launch indices in a row.

    They are disjoint, and what is left over at the end belongs to none. A launch that is not valid is missing in its
    comparison as it would be in a table. Each comparison is judged alone, as in a table that has no other.
    """
    logs = pairs(launches, metric, side, baseline)
    last = max((index for one in (side, baseline) for index in launches.values(metric, *one)), default=-1)
    found = []
    for block in blocks(last + 1, size):
        kept = {index: logs[index] for index in block if index in logs}
        found += judge(
            [with_pairs(Comparison(ways=frozenset({"launches"})), kept, SETTINGS.confidence, None)], SETTINGS
        )
    return found


def blocks(launches: int, size: int) -> list[range]:
    """Launch indices 0 to `launches` - 1 in disjoint blocks of `size` in a row, an incomplete one left out."""
    return [range(begin, begin + size) for begin in range(0, launches - size + 1, size)]


def pairs(launches: Launches, metric: MetricName, side: Side, baseline: Side) -> dict[int, float]:
    """Log ratio of each pair of valid launches by their index, above 0 where `side` is better."""
    ours, theirs = (launches.values(metric, *one) for one in (side, baseline))
    better = 1 if NUMBERS[metric].better == "higher" else -1
    both = sorted(ours.keys() & theirs.keys())
    return {index: better * (math.log(ours[index]) - math.log(theirs[index])) for index in both}


def log_ratios(launches: Launches, metric: MetricName, side: Side, baseline: Side) -> Array:
    """Log ratios of all pairs of valid launches in the order of their index, above 0 where `side` is better."""
    return np.array(list(pairs(launches, metric, side, baseline).values()))


def resampled(rng: np.random.Generator, logs: Array, comparisons: int, pairs: int) -> Array:
    """Log ratios [comparisons, pairs] drawn from `logs` [n >= pairs], as noise without any difference.

    None is drawn twice into one comparison, as no launch is measured twice. Signs are drawn, too: which of two names
    for the same is the baseline is arbitrary, and so the truth is 0.
    """
    places = np.argsort(rng.random(size=(comparisons, logs.size)), axis=-1)[:, :pairs]
    return np.asarray(logs[places] * rng.choice([-1.0, 1.0], size=places.shape))
