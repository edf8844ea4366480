"""The statistics of two sides that were measured apart: against scipy, by property, and by simulation."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from rollout_bench.analysis.stats.intervals import (
    welch_interval,
)

LOGS = st.lists(st.floats(-0.5, 0.5), min_size=2, max_size=9).filter(lambda logs: np.std(logs) > 1e-3)
TRIALS = 40_000


def sides(launches: int, others: int, spread: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return logs of two sides without any difference, the second `spread` times as noisy: [TRIALS, launches] each."""
    rng = np.random.default_rng(seed)
    return 0.02 * rng.normal(size=(TRIALS, launches)), 0.02 * spread * rng.normal(size=(TRIALS, others))


@given(st.integers(2, 9).flatmap(lambda n: st.tuples(*[st.lists(st.floats(-1, 1), min_size=n, max_size=n)] * 2)))
def test_interval_and_p_value_are_those_of_welchs_test(logs: tuple[list[float], list[float]]) -> None:
    assume(min(np.std(logs[0]), np.std(logs[1])) > 1e-3)
    ours, theirs = welch_interval(*logs, 0.9), stats.ttest_ind(*logs, equal_var=False)
    interval = theirs.confidence_interval(0.9)
    assert (ours.freedom, ours.p_value) == (pytest.approx(theirs.df), pytest.approx(theirs.pvalue, rel=1e-9, abs=1e-15))
    assert (np.log(ours.low), np.log(ours.high)) == pytest.approx((interval.low, interval.high), rel=1e-9, abs=1e-9)


@given(LOGS, LOGS)
def test_swapped_sides_invert_the_interval_and_keep_the_p_value(a: list[float], b: list[float]) -> None:
    forward, back = welch_interval(a, b, 0.95), welch_interval(b, a, 0.95)
    assert (1 / back.ratio, 1 / back.high, 1 / back.low) == pytest.approx((forward.ratio, forward.low, forward.high))
    assert back.p_value == pytest.approx(forward.p_value)


@pytest.mark.parametrize(("launches", "others"), [(2, 2), (2, 3), (2, 12), (3, 3), (3, 6), (3, 12), (6, 6), (6, 12)])
@pytest.mark.parametrize("level", [0.05, 0.05 / 6])
def test_equal_sides_differ_no_more_often_than_promised(launches: int, others: int, level: float) -> None:
    false = welch_interval(*sides(launches, others, 1), 0.95).p_value < level
    assert stats.binomtest(int(false.sum()), TRIALS, level, alternative="greater").pvalue > 1e-4


@pytest.mark.parametrize(("launches", "spread"), [(2, 3), (2, 10), (3, 3), (3, 10), (6, 3), (6, 10)])
def test_equally_many_launches_nearly_keep_the_promise_despite_unlike_scatter(launches: int, spread: float) -> None:
    assert (welch_interval(*sides(launches, launches, spread), 0.95).p_value < 0.05).mean() < 0.066


@pytest.mark.parametrize(("launches", "others", "spread"), [(6, 6, 1), (6, 6, 3), (6, 12, 1), (12, 12, 10)])
def test_intervals_cover_a_known_truth_as_often_as_they_promise(launches: int, others: int, spread: float) -> None:
    a, b = sides(launches, others, spread)
    found = welch_interval(a + np.log(1.16), b, 0.95)
    assert ((found.low <= 1.16) & (found.high >= 1.16)).mean() == pytest.approx(0.95, abs=0.008)
