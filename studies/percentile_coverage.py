"""Simulate pooled percentiles of launches that differ: how often an interval that is shown misses the truth."""

from __future__ import annotations

import argparse

import numpy as np
from kept import Share, keep
from markdown_parts import percent, table
from scipy import stats

from rollout_bench.analysis.stats.percentiles import CONFIDENCE, effective_samples, percentile_interval
from rollout_bench.analysis.timed.latencies import distribution
from rollout_bench.contracts.fields import Strict

LAUNCHES = (2, 3, 5)
SHARES = (0.0, 0.2, 0.4)
SHOWN = (50, 90)
SEQUENCES = 384
"""Of each launch, independent of each other but for their launch."""


class PercentileMisses(Strict):
    """Experiments with normal values, of whose variance the launches hold `share`.

    `missed` counts those that show an interval which does not hold the true percentile, `before` those that would with
    the ranks alone; `shown` counts those that show an interval at all.
    """

    percentile: int
    launches: int
    share: float
    shown: Share
    before: Share
    missed: Share


class PercentileCoverage(Strict):
    """Everything that was simulated."""

    seed: int
    sequences: int
    confidence: float
    cells: list[PercentileMisses]


def misses(percentile: int, launches: int, share: float, experiments: int, seed: int) -> PercentileMisses:
    """Return how often an interval is wrong. The same for the same arguments."""
    rng = np.random.default_rng([seed, percentile, launches, round(100 * share)])
    away = 10.0  # all values are above zero, as times are
    truth = away + float(stats.norm.ppf(percentile / 100))
    of_launch = np.repeat(np.arange(launches), SEQUENCES)
    shown = before = missed = 0
    for _ in range(experiments):
        noise = np.sqrt(1 - share) * rng.normal(size=of_launch.size)
        values = away + noise + np.sqrt(share) * rng.normal(size=launches)[of_launch]
        independent = max(1, int(effective_samples(values, of_launch)))
        found = distribution(values, independent, of_launch).proven.get(percentile)
        if found is not None:
            ranks = percentile_interval(values, percentile / 100, independent=independent)
            shown += 1
            before += not ranks.low <= truth <= ranks.high
            missed += not found.low <= truth <= found.high
    return PercentileMisses(
        percentile=percentile,
        launches=launches,
        share=share,
        shown=Share(count=shown, of=experiments),
        before=Share(count=before, of=experiments),
        missed=Share(count=missed, of=experiments),
    )


def simulate(experiments: int, seed: int) -> PercentileCoverage:
    """Return all percentiles, numbers of launches and shares."""
    cells = [misses(p, launches, share, experiments, seed) for p in SHOWN for launches in LAUNCHES for share in SHARES]
    return PercentileCoverage(seed=seed, sequences=SEQUENCES, confidence=CONFIDENCE, cells=cells)


def first_sentences(result: PercentileCoverage) -> list[str]:
    """Say whether intervals hold, with the worst case."""
    worst = max(result.cells, key=lambda one: one.missed.value)
    kept = worst.missed.interval[0] <= 1 - result.confidence
    missed, among = most_missed_of_shown(result)
    return [
        f"**{'Yes' if kept else 'NOT QUITE'}.**",
        f"At worst {worst.missed} of simulated experiments show an interval that misses the truth, where"
        f" {percent(1 - result.confidence, 0)} are promised: p{worst.percentile}, {worst.launches} launches that hold"
        f" {percent(worst.share, 0)} of the variance.",
        f"Of those that show the percentile at worst {missed} miss: p{among.percentile}, {among.launches}"
        f" launches that hold {percent(among.share, 0)} of the variance.",
    ]


def most_missed_of_shown(result: PercentileCoverage) -> tuple[Share, PercentileMisses]:
    """Return the largest share of intervals without the truth among those that are shown, and its experiments."""
    shown = [(Share(count=one.missed.count, of=one.shown.count), one) for one in result.cells if one.shown.count]
    return max(shown, key=lambda pair: pair[0].value)


def percentile_coverage(result: PercentileCoverage) -> str:
    """Write a line for each percentile and number of launches, and a column for each share."""
    cells = {(one.percentile, one.launches, one.share): one for one in result.cells}
    rows = [
        [f"p{p}, {launches} launches", *(_cell(cells[p, launches, share], result.confidence) for share in SHARES)]
        for p in SHOWN
        for launches in LAUNCHES
    ]
    return f"""\
{table(["launches hold, of the variance:", *(percent(share, 0) for share in SHARES)], rows)}

Per cent of {result.cells[0].missed.of:,} experiments that show an interval which misses the truth; seed {result.seed}.
Before the arrow: by the ranks alone. In round brackets: per cent of experiments that show an interval at all.
A launch has {result.sequences} sequences, whose values are normal. Above {percent(1 - result.confidence, 0)} is bold.

The correlation of a few launches often comes out too small by chance, and only then there are values enough to claim a
percentile. Among the experiments that show one, more are therefore wrong than among all: divide by the share in
brackets. The ranks alone were worse.

Not shown: values that are not normal, and sequences that depend on each other inside a launch."""


def _cell(one: PercentileMisses, confidence: float) -> str:
    low, high = one.missed.interval
    missed = f"{100 * one.missed.value:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
    missed = f"**{missed}**" if low > 1 - confidence else missed
    return f"{100 * one.before.value:.1f} → {missed} ({100 * one.shown.value:.0f})"


def main() -> None:
    """Simulate, print a line for each cell, keep the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiments", type=int, default=4000, help="in each cell (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the random numbers (default: %(default)s)")
    arguments = parser.parse_args()
    result = simulate(arguments.experiments, arguments.seed)
    for one in result.cells:
        print(f"p{one.percentile}, {one.launches} launches, {one.share}: {one.before} -> {one.missed}; {one.shown}")
    print(keep("percentile_coverage", result))


if __name__ == "__main__":
    main()
