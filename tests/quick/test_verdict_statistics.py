"""The statistics behind verdicts: against scipy where it has them, by property, and by simulation of a known truth."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import special, stats

from rollout_bench.analysis.stats.intervals import Array, holm, ratio_interval, strictest_level
from rollout_bench.analysis.stats.power import MAX_PAIRS, fewest, minimal_detectable_difference, noncentrality

LOGS = st.lists(st.floats(-0.5, 0.5), min_size=2, max_size=12).filter(lambda logs: np.std(logs) > 1e-3)
P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=12)
LEVELS = st.floats(0.0005, 0.3)
POWERS = st.floats(0.7, 0.99)
TRIALS = 20_000


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def agrees(hits: Array, chance: float) -> bool:
    """Return whether the share of `hits` can be `chance`: inside its own binomial interval at 99.99 %."""
    interval = stats.binomtest(int(hits.sum()), hits.size).proportion_ci(0.9999)
    return bool(interval.low <= chance <= interval.high)


def is_at_most(hits: Array, chance: float) -> bool:
    """Return whether the share of `hits` gives no reason (p > 0.0001) to think that it is above `chance`."""
    return bool(stats.binomtest(int(hits.sum()), hits.size, chance, alternative="greater").pvalue > 1e-4)


@given(LOGS, st.floats(0.5, 0.999))
def test_interval_and_p_value_are_those_of_the_paired_t_test(logs: list[float], confidence: float) -> None:
    ours = ratio_interval(logs, confidence)
    theirs = stats.ttest_rel(logs, np.zeros(len(logs)))
    interval = theirs.confidence_interval(confidence)
    assert ours.p_value == pytest.approx(theirs.pvalue, rel=1e-9, abs=1e-15)
    assert (np.log(ours.low), np.log(ours.high)) == pytest.approx((interval.low, interval.high), rel=1e-9, abs=1e-9)


@given(LOGS, st.randoms())
def test_the_order_of_pairs_does_not_matter(logs: list[float], random: object) -> None:
    random.shuffle(shuffled := list(logs))  # type: ignore[attr-defined]
    one, other = ratio_interval(logs, 0.95), ratio_interval(shuffled, 0.95)
    assert vars(one) == pytest.approx(vars(other), rel=1e-9)


@given(LOGS)
def test_swapped_sides_give_the_inverse_interval_and_the_same_p_value(logs: list[float]) -> None:
    there, back = ratio_interval(logs, 0.95), ratio_interval([-log for log in logs], 0.95)
    assert (1 / back.ratio, 1 / back.high, 1 / back.low) == pytest.approx((there.ratio, there.low, there.high))
    assert back.p_value == pytest.approx(there.p_value)


@given(LOGS, st.floats(1.01, 10))
def test_more_noise_makes_the_interval_wider(logs: list[float], factor: float) -> None:
    noisier = [np.mean(logs) + factor * (log - np.mean(logs)) for log in logs]
    one, other = ratio_interval(logs, 0.95), ratio_interval(noisier, 0.95)
    assert other.ratio == pytest.approx(one.ratio)
    assert np.log(other.high / other.low) == pytest.approx(factor * np.log(one.high / one.low))


@given(LOGS, st.integers(2, 5))
def test_more_pairs_of_the_same_spread_make_the_interval_narrower(logs: list[float], times: int) -> None:
    one, other = ratio_interval(logs, 0.95), ratio_interval(logs * times, 0.95)
    assert one.low < other.low < other.high < one.high


@pytest.mark.parametrize("pairs", range(2, 13))
def test_intervals_cover_a_known_truth_as_often_as_they_promise(pairs: int) -> None:
    for truth, confidence in ((1.16, 0.95), (0.83, 0.8)):
        logs = np.log(truth) + 0.03 * rng(pairs).normal(size=(TRIALS, pairs))
        found = ratio_interval(logs, confidence)
        assert agrees((found.low <= truth) & (truth <= found.high), confidence)


@pytest.mark.parametrize("logs", [[], [0.1], 0.1, [0.1, np.nan], [0.1, np.inf], [0.1, 0.1, 0.1], [0.1, 0.1 + 1e-15]])
def test_what_allows_no_interval_is_an_error(logs: object) -> None:
    with pytest.raises(ValueError, match=r"pairs|finite|differ"):
        ratio_interval(logs, 0.95)  # type: ignore[arg-type]


@given(P_VALUES, st.floats(0.001, 0.5))
def test_holm_rejects_what_the_textbook_procedure_rejects(p: list[float], alpha: float) -> None:
    steps = [alpha / (len(p) - step) for step in range(len(p))]
    below = [value <= level for value, level in zip(sorted(p), steps, strict=True)]
    assume(all(abs(value - level) > 1e-12 for value, level in zip(sorted(p), steps, strict=True)))
    stop = below.index(False) if False in below else len(p)
    assert sorted(holm(p))[stop - 1 : stop] == [value for value in sorted(holm(p)) if value <= alpha][-1:]
    assert sum(holm(p) <= alpha) == stop


@given(P_VALUES, st.randoms())
def test_adjusted_p_values_keep_the_order_and_are_never_below_the_raw_ones(p: list[float], random: object) -> None:
    adjusted = holm(p)
    assert all(adjusted >= p)
    assert all(adjusted <= 1)
    order = np.argsort(p, kind="stable")
    assert all(np.diff(adjusted[order]) >= 0)
    random.shuffle(places := list(range(len(p))))  # type: ignore[attr-defined]
    assert holm(np.array(p)[places]) == pytest.approx(adjusted[places])


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.2]) == pytest.approx([0.2])
    assert holm([[0.01, 0.02], [0.9, 0.5]]) == pytest.approx(np.array([[0.02, 0.02], [1, 1]]))


@pytest.mark.parametrize("p", [[0.5, np.nan], [-0.1], [1.1]])
def test_what_is_no_p_value_is_an_error(p: list[float]) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm(p)


@pytest.mark.parametrize(("pairs", "comparisons"), [(2, 3), (3, 2), (3, 10), (6, 5), (12, 24)])
@pytest.mark.parametrize("shared", [False, True], ids=["own_baselines", "one_baseline"])
def test_a_table_without_any_difference_shows_one_in_five_of_a_hundred(
    pairs: int, comparisons: int, shared: bool
) -> None:
    noise = 0.03 * rng(pairs * comparisons).normal(size=(TRIALS, comparisons, pairs))
    baseline = 0.03 * rng(1).normal(size=(TRIALS, 1 if shared else comparisons, pairs))
    false = (holm(ratio_interval(noise - baseline, 0.95).p_value) < 0.05).any(axis=-1)
    assert is_at_most(false, 0.05)
    if not shared:  # then it is hardly less either: the level is used, not wasted
        assert not is_at_most(false, 0.04)


@pytest.mark.parametrize("pairs", [2, 3, 5, 12])
@pytest.mark.parametrize(("comparisons", "power"), [(1, 0.8), (6, 0.8), (3, 0.9)])
def test_the_minimal_detectable_difference_is_detected_as_often_as_promised(
    pairs: int, comparisons: int, power: float
) -> None:
    level = strictest_level(0.05, comparisons)
    sd = 0.02 / np.sqrt(pairs)
    difference = minimal_detectable_difference(sd, pairs, level, power)
    for truth in (1 + difference, 1 / (1 + difference)):
        logs = np.log(truth) + sd * rng(pairs).normal(size=(TRIALS, pairs))
        assert agrees(ratio_interval(logs, 0.95).p_value < level, power)


@pytest.mark.parametrize("pairs", [2, 3, 6, 30])
@pytest.mark.parametrize("level", [0.05, 0.05 / 6])
def test_the_noncentrality_solves_the_equation_that_defines_it(pairs: int, level: float) -> None:
    critical = stats.t.ppf(1 - level / 2, pairs - 1)
    assert stats.nct.sf(critical, pairs - 1, noncentrality(pairs, level, 0.8)) == pytest.approx(0.8, abs=1e-5)


@given(st.floats(1e-4, 0.05), st.integers(2, 100), LEVELS, POWERS)
def test_less_is_detectable_with_more_noise_fewer_pairs_a_stricter_level_or_more_power(
    sd: float, pairs: int, level: float, power: float
) -> None:
    here = minimal_detectable_difference(sd, pairs, level, power)
    assert minimal_detectable_difference(1.1 * sd, pairs, level, power) > here
    assert minimal_detectable_difference(sd, pairs + 1, level, power) < here
    assert minimal_detectable_difference(sd, pairs, level / 2, power) > here
    assert minimal_detectable_difference(sd, pairs, level, power + 0.005) > here


@given(st.integers(2, 50), LEVELS, POWERS)
def test_what_is_just_not_significant_is_smaller_than_what_would_have_been_detected(
    pairs: int, level: float, power: float
) -> None:
    assert noncentrality(pairs, level, power) > stats.t.ppf(1 - level / 2, pairs - 1)


@given(st.integers(2, 100_000), st.integers(2, 100_000))
def test_the_fewest_is_found_wherever_it_is(fewest_enough: int, least: int) -> None:
    assert fewest(lambda number: number >= fewest_enough, least) == max(fewest_enough, least)
    assert fewest(lambda number: number > MAX_PAIRS, least) is None


def test_a_spread_beyond_all_measure_finds_no_difference() -> None:
    assert minimal_detectable_difference(1.0, MAX_PAIRS, 0.05, 0.8) > 1e-6
    assert minimal_detectable_difference(1e3, 2, 0.05, 0.8) == np.inf


@pytest.mark.parametrize(("pairs", "level"), [(2, 1e-9), (2, 1e-6), (2, 6e-4), (3, 1e-9), (4, 1e-12)])
def test_what_can_be_detected_at_levels_however_strict_is_known_in_no_time(pairs: int, level: float) -> None:
    began = time.process_time()
    found = noncentrality(pairs, level, 0.8)
    assert time.process_time() - began < 2
    critical = special.stdtrit(pairs - 1, 1 - level / 2)
    rng = np.random.default_rng(1)
    t = (rng.normal(size=400_000) + found) / np.sqrt(rng.chisquare(pairs - 1, size=400_000) / (pairs - 1))
    assert (t > critical).mean() == pytest.approx(0.8, abs=0.005)
