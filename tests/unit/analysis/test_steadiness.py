"""The steady-state rule: what is steady raises nothing, what is not is told, and how often it errs."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout_bench.analysis.stats.steadiness import (
    LEAD_IN_LEVEL,
    LEAST,
    LEVEL,
    judge,
    unsteady,
)

TIMES = st.lists(st.floats(0.01, 100.0), min_size=1, max_size=24)


@given(TIMES)
def test_any_series_gets_an_answer_that_fits_it(times: list[float]) -> None:
    found, series = judge(times), np.array(times)
    assert found is None or len(times) >= LEAST
    if found is not None:
        assert 0 <= found.more <= len(times) // 2
        assert (found.more > 0) == (found.code == "warmup_too_short")
        assert (unsteady(series[found.more :]) is None) == (found.more > 0)


@given(st.integers(LEAST, 20), st.floats(0.03, 0.15))
def test_a_drift_in_either_direction_is_told(n: int, change: float) -> None:
    rising, falling = ([1 + sign * change * i / (n - 1) for i in range(n)] for sign in (1, -1))
    assert judge(rising).code == "not_steady"
    assert judge(falling) is not None  # a long slope down may pass for a warm-up


@given(st.integers(LEAST, 20), st.data())
def test_a_step_up_is_told(n: int, data: st.DataObject) -> None:
    split = data.draw(st.integers(1, n - 1))
    found = judge([1.0] * split + [1.1] * (n - split))
    assert found.code == "not_steady"
    assert "from 1 s to 1.1 s" in found.sentence


@given(st.integers(1, 8), st.integers(3, 12))
def test_slow_first_passes_are_counted_towards_the_warm_up(slow: int, steady: int) -> None:
    found = judge([1.15] * slow + [1.0] * steady)
    if slow + steady < LEAST or slow > steady:
        assert found is None or found.code == "not_steady"
    else:
        assert (found.code, found.more) == ("warmup_too_short", slow)
        assert "took 15.0 % longer than the rest" in found.sentence


def test_one_wild_iteration_is_told_with_its_number() -> None:
    found = judge([3.22, 3.259, 3.212, 4.238])
    assert found.code == "not_steady"
    assert found.sentence == "Measured iteration 4 of 4 took 4.238 s, 30.8 % above the median of 3.24 s (limit 20 %)."


@pytest.mark.parametrize("cv", [0.005, 0.01, 0.02, 0.05])
@pytest.mark.parametrize("n", [4, 8, 20])
def test_independent_noise_is_flagged_no_more_often_than_promised(cv: float, n: int) -> None:
    series = 500
    noise = np.random.default_rng(1).normal(1.0, cv, (series, n))
    flagged = sum(judge(each.tolist()) is not None for each in noise)
    promised = LEAD_IN_LEVEL + 2 * LEVEL
    assert flagged <= series * promised + 3 * math.sqrt(series * promised)
