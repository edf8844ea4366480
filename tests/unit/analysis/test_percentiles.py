"""Percentiles that can be proven: against the rule that defines them, by property, and by simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from percentile_coverage import misses
from scipy import stats

from rollout_bench.analysis.stats.percentiles import (
    correlation_time,
    effective_samples,
    interval_ranks,
    percentile_interval,
    samples_needed,
    share_limits,
)
from rollout_bench.analysis.timed.latencies import more_for, provable

SHARES = st.floats(0.5, 0.995)
CONFIDENCES = st.floats(0.8, 0.999)
TRIALS = 4_000


@pytest.mark.parametrize(("percentile", "samples"), [(50, 11), (90, 64), (95, 130), (97, 219), (99, 662)])
def test_a_percentile_takes_as_many_samples_as_early_stopping_asks(percentile: int, samples: int) -> None:
    assert samples_needed(percentile / 100) == samples
    assert percentile in provable(samples)
    assert percentile not in provable(samples - 1)
    assert (more_for(percentile, samples - 1), more_for(percentile, samples)) == (1, 0)


@given(SHARES, CONFIDENCES)
def test_the_samples_needed_are_the_fewest_that_do(p: float, confidence: float) -> None:
    n = samples_needed(p, confidence)
    assert stats.binom.cdf(1, n, 1 - p) <= 1 - confidence < stats.binom.cdf(1, n - 1, 1 - p)


@given(SHARES, CONFIDENCES, st.integers(0, 3000))
def test_the_ranks_are_the_narrowest_that_hold_the_confidence(p: float, confidence: float, more: int) -> None:
    n = samples_needed(p, confidence) + more
    low, high = interval_ranks(n, p, confidence)
    tail = (1 - confidence) / 2
    assert 1 <= low <= np.ceil(n * p) <= high <= n
    assert stats.binom.cdf(low - 1, n, p) <= tail + 1e-12
    assert stats.binom.sf(high - 1, n, p) <= tail + 1e-12
    assert stats.binom.cdf(low, n, p) >= tail - 1e-12
    assert high == 1 or stats.binom.sf(high - 2, n, p) >= tail - 1e-12


@pytest.mark.parametrize("p", [0.5, 0.9, 0.95, 0.97, 0.99])
@pytest.mark.parametrize("more", [0, 100])
@pytest.mark.parametrize("kind", ["lognormal", "ties"])
def test_intervals_cover_a_known_percentile_as_often_as_they_promise(p: float, more: int, kind: str) -> None:
    rng = np.random.default_rng(7)
    n = samples_needed(p) + more
    values = rng.lognormal(size=(TRIALS, n)) if kind == "lognormal" else rng.poisson(40, size=(TRIALS, n)) * 1.0
    truth = stats.lognorm.ppf(p, 1) if kind == "lognormal" else stats.poisson.ppf(p, 40)
    found = percentile_interval(values, p)
    hits = int(((found.low <= truth) & (truth <= found.high)).sum())
    assert stats.binomtest(hits, TRIALS, 0.99, alternative="less").pvalue > 1e-4


def test_values_count_less_the_more_their_group_says_of_them() -> None:
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(12), 32)
    alone, shared = rng.normal(size=384), rng.normal(size=12)[groups]
    assert effective_samples(shared, groups) == pytest.approx(12)
    assert effective_samples(alone, groups) > 250
    assert 12 < effective_samples(alone + shared, groups) < 60
    assert effective_samples(alone, np.zeros(384)) == effective_samples(alone, np.arange(384)) == 384
    assert effective_samples(np.ones(384), groups) == 12


@pytest.mark.parametrize(("launches", "share"), [(3, 0.2), (3, 0.4), (5, 0.0)])
def test_few_unlike_launches_show_no_excess_of_wrong_intervals(launches: int, share: float) -> None:
    found = misses(50, launches, share, 1000, seed=2)
    assert found.missed.interval[0] <= 0.01
    assert found.shown.value > 0.4
    assert share == 0 or found.before.interval[0] > 0.01


def test_grouped_values_give_the_interval_of_one_per_group() -> None:
    groups = np.arange(100.0)
    alone = percentile_interval(groups, 0.9)
    assert vars(percentile_interval(np.repeat(groups, 32), 0.9, independent=100)) == vars(alone)
    low, high = interval_ranks(100, 0.9)
    whole = percentile_interval(np.arange(3200.0), 0.9, independent=100)
    assert (whole.low, whole.high) == (32 * (low - 1), 32 * high - 1)  # the ends take in whole groups


@pytest.mark.parametrize(
    ("hits", "trials", "confidence"), [(0, 20, 0.95), (17, 20, 0.95), (180, 200, 0.8), (20, 20, 0.99)]
)
def test_limits_of_a_share_are_those_of_clopper_and_pearson(hits: int, trials: int, confidence: float):
    both_sides = stats.binomtest(hits, trials).proportion_ci(2 * confidence - 1, method="exact")
    assert share_limits(hits / trials, trials, confidence, confidence) == pytest.approx(tuple(both_sides))


def test_the_worth_of_grouped_values_follows_from_their_analysis_of_variance():
    groups = np.random.default_rng(5).normal(size=(6, 8)) + 0.8 * np.arange(6)[:, None]
    between_over_within = stats.f_oneway(*groups).statistic
    correlation = (between_over_within - 1) / (between_over_within + 8 - 1)
    worth = effective_samples(groups.ravel(), np.repeat(np.arange(6), 8))
    assert worth == pytest.approx(48 / (1 + (8 - 1) * correlation))


@pytest.mark.parametrize("memory", [0.0, 0.5, 0.8])
def test_neighbours_that_resemble_each_other_are_worth_fewer_values(memory: float):
    """Of an autoregressive series of the first order (1 + memory) / (1 - memory) neighbours are worth one value."""
    random = np.random.default_rng(7)
    series = []
    for _ in range(20):
        values = [random.standard_normal()]
        for _ in range(999):
            values.append(memory * values[-1] + math.sqrt(1 - memory**2) * random.standard_normal())
        series.append(np.array(values))
    assert correlation_time(series) == pytest.approx((1 + memory) / (1 - memory), rel=0.15)


def test_equal_values_and_single_ones_have_no_memory():
    assert correlation_time([]) == correlation_time([np.array([1.0])]) == correlation_time([np.ones(9)]) == 1.0
