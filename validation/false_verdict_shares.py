"""False verdicts, counted among real comparisons and among tables simulated from the noise that was measured."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from blocks import SIZE, comparisons, log_ratios, resampled
from kept import SETTINGS, Share
from noise import Array
from repeats import FIRST, SECOND, Launches
from stopping import RULE, auto_comparisons

from rollout_bench.analysis.multiple import holm
from rollout_bench.analysis.paired import ratio_interval
from rollout_bench.analysis.statistics import pooled_cv_percent
from rollout_bench.plan.fields import Metric
from rollout_bench.plan.spec import Strict

METRIC: Metric = "output_tokens_per_s"
ALPHA = 1 - SETTINGS.confidence

Kind = Literal["normal", "resampled"]


class Simulated(Strict):
    """Tables without any true difference: how many showed one in some comparison.

    `pairs` is what each comparison took on average.
    """

    noise: Kind
    launches: str
    comparisons: int
    significant: Share
    marked: Share
    pairs: float


class FalseVerdicts(Strict):
    """What was counted.

    `significant` counts p < 1 - confidence, `marked` those that are shown as `^` or `v`. `ratio`, `low`, `high` are
    of all pairs together, `log_sd` their spread; `launch_cv_percent` that of the launches of one side;
    `correlation` is between a pair's log ratio and that of the next pair, of `neighbours` such. `detectable` are the
    sizes that the comparisons themselves named as detectable. `auto` counts comparisons that the sequential rule ended,
    run over the measured pairs one after the other.
    """

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
    detectable: list[float]
    auto: Share | None
    simulated: list[Simulated]


def analyse(launches: Launches, tables: int, seed: int) -> FalseVerdicts:
    """Counts and simulates; raises `SystemExit` where there is no whole comparison yet."""
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
        log_sd=float(whole.log_sd),
        launch_cv_percent=pooled_cv_percent(inside) or 0.0,
        correlation=float((neighbours[0] * neighbours[1]).mean() / (logs - logs.mean()).var()),
        neighbours=neighbours.shape[-1],
        detectable=sorted(one.minimal_detectable_difference for one in judged),
        auto=_auto(each),
        simulated=_simulate(logs, float(whole.log_sd), tables, seed),
    )


def _auto(each: list[Array]) -> Share | None:
    """False findings of the sequential rule on measured pairs: a comparison begins where the one before it ended."""
    p_values = []
    for logs in each:
        begin = 0
        while begin + RULE.max_pairs <= logs.size:
            pairs, _, p = auto_comparisons(logs[None, begin : begin + RULE.max_pairs])
            p_values.append(p[0])
            begin += int(pairs[0])
    return Share(count=int(sum(p < ALPHA for p in p_values)), of=len(p_values)) if p_values else None


def _simulate(logs: Array, log_sd: float, tables: int, seed: int) -> list[Simulated]:
    found = []
    kinds: tuple[Kind, ...] = ("normal", "resampled")
    for place, (noise, count) in enumerate((noise, count) for noise in kinds for count in (1, 2, 6)):
        rng = np.random.default_rng([seed, place])
        if noise == "normal":
            drawn = log_sd * rng.normal(size=(tables * count, RULE.max_pairs))
        elif logs.size >= RULE.max_pairs:
            drawn = resampled(rng, logs, tables * count, RULE.max_pairs)
        else:
            continue  # too few were measured to draw from
        fixed = drawn[:, :SIZE]
        p_fixed = ratio_interval(fixed, SETTINGS.confidence).p_value
        found.append(_counted(noise, str(SIZE), count, p_fixed, fixed.mean(axis=-1), float(SIZE)))
        pairs, middle, p_auto = auto_comparisons(drawn)
        found.append(_counted(noise, "auto", count, p_auto, middle, float(pairs.mean())))
    return found


def _counted(noise: Kind, launches: str, count: int, p_values: Array, middle: Array, pairs: float) -> Simulated:
    """Tables of `count` comparisons each with some p value, and some verdict, that is false."""
    significant = holm(p_values.reshape(-1, count)) < ALPHA
    relevant = np.abs(middle).reshape(-1, count) >= math.log1p(SETTINGS.relevant_difference)
    tables = significant.shape[0]
    return Simulated(
        noise=noise,
        launches=launches,
        comparisons=count,
        significant=Share(count=int(significant.any(axis=-1).sum()), of=tables),
        marked=Share(count=int((significant & relevant).any(axis=-1).sum()), of=tables),
        pairs=pairs,
    )
