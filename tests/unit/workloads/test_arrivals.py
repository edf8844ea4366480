"""Requests are due at the rate and with the unevenness that was asked for."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rollout_bench.workloads.requests import arrivals


def gaps(burstiness: float, rate: float = 4.0, count: int = 5001) -> np.ndarray:
    return np.diff(arrivals(rate, burstiness, count, "fixed"))


@given(
    rate=st.floats(1e-3, 1e5),
    burstiness=st.one_of(st.floats(1e-4, 1e6), st.just("constant")),
    count=st.integers(0, 60),
    label=st.text(max_size=4),
)
def test_times_rise_from_0_to_what_the_rate_says(rate: float, burstiness: float | str, count: int, label: str):
    due = arrivals(rate, burstiness, count, label)
    assert len(due) == count
    assert all(0 <= a <= b for a, b in pairwise(due))
    if count:
        assert due[0] == 0
        assert due[-1] == pytest.approx((count - 1) / rate)


@pytest.mark.parametrize("burstiness", [0.25, 0.5, 1.0, 3.0, 40.0])
def test_gaps_are_gamma_distributed_with_the_shape_asked_for(burstiness: float):
    found = gaps(burstiness)
    assert found.mean() == pytest.approx(0.25)
    assert found.std() / found.mean() == pytest.approx(burstiness**-0.5, rel=0.06)
    assert stats.kstest(found, stats.gamma(burstiness, scale=0.25 / burstiness).cdf).pvalue > 0.001


def test_the_rate_scales_a_pattern_that_the_label_decides():
    slow, fast = arrivals(1.0, 1.0, 50, "a"), arrivals(8.0, 1.0, 50, "a")
    assert slow == pytest.approx([8 * due for due in fast])
    assert slow != arrivals(1.0, 1.0, 50, "b")


def test_the_pattern_stays_what_it_is():
    assert arrivals(1.0, 0.7, 4, "pinned") == pytest.approx([0.0, 1.14171900, 2.40022538, 3.0])
