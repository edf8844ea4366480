"""False verdicts, counted among real comparisons and among tables simulated from the noise that was measured."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from blocks import SIZE, comparisons, log_ratios, resampled
from kept import SETTINGS, Share
from noise import Array
from repeats import FIRST, SECOND, Launches

from rollout_bench.analysis.stats.blocks import step_down
from rollout_bench.analysis.stats.intervals import pooled_cv_percent, ratio_interval, standard_deviation
from rollout_bench.contracts.fields import Strict
from rollout_bench.numbers.registry import MetricName

METRIC: MetricName = "output_tokens_per_s"
ALPHA = 1 - SETTINGS.confidence

Kind = Literal["normal", "resampled"]
SET_TABLES = 2000
"""Tables from each set of normal noise that says what chance does to a set of measured log ratios."""


class Simulated(Strict):
    """Tables without any true difference: how many showed one in some comparison.

    `by_chance`, for those drawn from what was measured: between which
    shares `significant` lies in 95 % of cases where as many normal log ratios are drawn from.
    """

    noise: Kind
    comparisons: int
    significant: Share
    marked: Share
    by_chance: tuple[float, float] | None


class FalseVerdicts(Strict):
    """What was counted.

    `significant` counts p < 1 - confidence, `marked` those that are shown as `^` or `v`. `ratio`, `low`, `high` are
    of all pairs together, `log_sd` their spread; `launch_cv_percent` that of the launches of one side;
    `correlation` is between a pair's log ratio and that of the next pair, of `neighbours` such."""

    seed: int
    block: int
    significant: Share
    marked: Share
    ratio: float
    low: float
    high: float
    log_sd: float
    launch_cv_percent: float
    correlation: float
    neighbours: int
    simulated: list[Simulated]


def analyse(launches: Launches, tables: int, seed: int, sets: int = 100) -> FalseVerdicts:
    """Count, and simulate so many tables; raise `SystemExit` where there is no whole comparison yet.

    `sets` of normal noise say what chance alone does to what is drawn from few measured pairs.
    """
    workloads = [workload for workload in launches.output_tokens if launches.values(METRIC, SECOND, workload)]
    sides = [((SECOND, workload), (FIRST, workload)) for workload in workloads]
    judged = [one for pair in sides for one in comparisons(launches, METRIC, *pair) if one.p_adjusted is not None]
    if not judged:
        raise SystemExit(f"too few launches for a comparison of {SIZE} pairs\nmeasure more")
    each = [log_ratios(launches, METRIC, *pair) for pair in sides]
    logs = np.concatenate(each)
    whole = ratio_interval(logs, SETTINGS.confidence)
    inside = [list(launches.values(METRIC, *side).values()) for pair in sides for side in pair]
    neighbours = np.concatenate([np.stack([one[:-1], one[1:]]) - logs.mean() for one in each], axis=-1)
    return FalseVerdicts(
        seed=seed,
        block=SIZE,
        significant=Share(count=sum(one.p_adjusted < ALPHA for one in judged), of=len(judged)),  # type: ignore[operator]
        marked=Share(count=sum(one.verdict in ("faster", "slower") for one in judged), of=len(judged)),
        ratio=float(whole.ratio),
        low=float(whole.low),
        high=float(whole.high),
        log_sd=standard_deviation(logs),
        launch_cv_percent=pooled_cv_percent(inside) or 0.0,
        correlation=float((neighbours[0] * neighbours[1]).mean() / (logs - logs.mean()).var()),
        neighbours=neighbours.shape[-1],
        simulated=_simulate(logs, standard_deviation(logs), tables, seed, sets),
    )


def _simulate(logs: Array, log_sd: float, tables: int, seed: int, sets: int) -> list[Simulated]:
    """Make tables of 1, 2 and 6 comparisons, with normal noise and with `logs`, where they suffice."""
    found = []
    for count in (1, 2, 6):
        rng = np.random.default_rng([seed, count])
        found.append(_counted("normal", count, log_sd * rng.normal(size=(tables * count, SIZE))))
        one = _counted("resampled", count, resampled(rng, logs, tables * count, SIZE))
        chance = _by_chance(rng, log_sd * rng.normal(size=(sets, logs.size)), count)
        found.append(one.model_copy(update={"by_chance": chance}))
    return sorted(found, key=lambda one: one.noise)


def _by_chance(rng: np.random.Generator, noise: Array, count: int) -> tuple[float, float]:
    """Between which shares 95 % of the sets of normal log ratios `noise` [sets, n] lie, drawn from as the measured are.

    A few odd pairs of so few change the share of all that is drawn from them, more than the number of tables tells.
    """
    shares = []
    for one in noise:
        drawn = resampled(rng, one, SET_TABLES * count, SIZE)
        shares.append(_counted("resampled", count, drawn).significant.value)
    low, high = np.quantile(shares, [0.025, 0.975])
    return float(low), float(high)


def _counted(noise: Kind, count: int, drawn: Array) -> Simulated:
    """Return tables of `count` comparisons each, log ratios in the rows of `drawn`.

    How many show some that is false.
    """
    interval = ratio_interval(drawn, SETTINGS.confidence)
    p_values = interval.p_value.reshape(-1, count)
    significant = np.zeros(p_values.shape, dtype=bool)
    for table in np.flatnonzero(p_values.min(axis=-1) * count < ALPHA):
        significant[table] = step_down(p_values[table], range(count)) < ALPHA
    relevant = np.abs(np.log(interval.ratio)).reshape(-1, count) >= math.log1p(SETTINGS.relevant_difference)
    tables = significant.shape[0]
    return Simulated(
        noise=noise,
        comparisons=count,
        significant=Share(count=int(significant.any(axis=-1).sum()), of=tables),
        marked=Share(count=int((significant & relevant).any(axis=-1).sum()), of=tables),
        by_chance=None,
    )
