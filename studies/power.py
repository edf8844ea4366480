"""Known differences: how often were they found, and how often does the power analysis promise it?"""

from __future__ import annotations

import argparse
import math

import numpy as np
from blocks import comparisons, log_ratios, resampled
from false_verdict_shares import ALPHA
from kept import SETTINGS, Share, keep, kept
from noise import Array
from repeats import BASE, FIRST, SECOND, Launches
from scipy import stats

from rollout_bench.analysis.stats.intervals import ratio_interval, standard_deviation
from rollout_bench.contracts.fields import Strict
from rollout_bench.numbers.registry import MetricName

METRIC: MetricName = "step_time_s"
SIZES = (3, 6, 12)
"""Pairs in the comparisons that are cut out of what was measured."""


class Difference(Strict):
    """One known difference: `more_tokens` is the share of output tokens added.

    `ratio`, `low`, `high` are its speed-up from all pairs together and `log_sd` their spread, over both quants.
    `found` counts comparisons of `pairs` pairs with the right verdict, `wrong` those with the opposite one. `promised`
    is the chance that the power analysis gives for that ratio and spread; `simulated` and `resampled` count simulated
    comparisons with normal noise of that spread and with what was measured.
    """

    workload: str
    pairs: int
    more_tokens: float
    ratio: float
    low: float
    high: float
    log_sd: float
    found: Share
    wrong: int
    promised: float
    simulated: Share
    resampled: Share | None


class Power(Strict):
    """Everything about power."""

    seed: int
    differences: list[Difference]


def promised(log_ratio: float, log_sd: float, pairs: int) -> float:
    """Return the chance to find `log_ratio`, on its side, that the noncentral t distribution gives so many pairs."""
    critical = stats.t.ppf(1 - ALPHA / 2, pairs - 1)
    return float(stats.nct.sf(critical, pairs - 1, abs(log_ratio) * math.sqrt(pairs) / log_sd))


def analyse(launches: Launches, repetitions: int, seed: int) -> Power:
    """Count and simulate; raise `SystemExit` where there is nothing to count."""
    rng = np.random.default_rng(seed)
    workloads = [name for name in launches.output_tokens if name != BASE and launches.values(METRIC, FIRST, name)]
    pairs = [log_ratios(launches, METRIC, (FIRST, name), (FIRST, BASE)).size for name in workloads]
    sizes = [size for size in SIZES if pairs and size <= min(pairs)]
    if not sizes:
        raise SystemExit(f"too few launches for a comparison of {SIZES[0]} pairs\nmeasure more")
    differences = [_difference(launches, name, size, repetitions, rng) for name in workloads for size in sizes]
    return Power(
        seed=seed,
        differences=differences,
    )


def _difference(launches: Launches, workload: str, size: int, repetitions: int, rng: np.random.Generator) -> Difference:
    sides = [((quant, workload), (quant, BASE)) for quant in (FIRST, SECOND)]
    judged = [one for pair in sides for one in comparisons(launches, METRIC, *pair, size) if one.p_adjusted is not None]
    logs = np.concatenate([log_ratios(launches, METRIC, *pair) for pair in sides])
    whole = ratio_interval(logs, SETTINGS.confidence)
    middle, log_sd = float(logs.mean()), standard_deviation(logs)
    normal = middle + log_sd * rng.normal(size=(repetitions, size))
    drawn = middle + resampled(rng, logs - middle, repetitions, size) if logs.size > size else None
    return Difference(
        workload=workload,
        pairs=size,
        more_tokens=launches.output_tokens[workload] / launches.output_tokens[BASE] - 1,
        ratio=float(whole.ratio),
        low=float(whole.low),
        high=float(whole.high),
        log_sd=log_sd,
        found=Share(count=sum(one.verdict == "slower" for one in judged), of=len(judged)),
        wrong=sum(one.verdict == "faster" for one in judged),
        promised=promised(middle, log_sd, size),
        simulated=_found(normal),
        resampled=None if drawn is None else _found(drawn),
    )


def _found(logs: Array) -> Share:
    """Return how many of `logs` [comparisons, pairs] differ from none at the level of a single comparison, below 1."""
    interval = ratio_interval(logs, SETTINGS.confidence)
    return Share(count=int(((interval.p_value < ALPHA) & (interval.ratio < 1)).sum()), of=len(logs))


def main() -> None:
    """Read what was measured, print a line for each difference, keep the counts."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog="Measure first: python studies/false_verdicts.py measure"
    )
    parser.add_argument("--repetitions", type=int, default=10_000, help="of each simulation (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the random numbers (default: %(default)s)")
    arguments = parser.parse_args()
    launches = kept("launches", Launches)
    if launches is None:
        raise SystemExit("nothing is measured\nrun `python studies/false_verdicts.py measure` first")
    result = analyse(launches, arguments.repetitions, arguments.seed)
    for one in result.differences:
        print(f"{one.workload}: {one.ratio:.4f}, found {one.found}, promised {100 * one.promised:.1f} %")
    print(keep("power", result))


if __name__ == "__main__":
    main()
