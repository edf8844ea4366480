"""Intervals of pairs, and of lines that cross: against scipy, and by simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rollout_bench.analysis.stats.intervals import ratio_interval, t_interval
from rollout_bench.analysis.stats.lines import Range, crossing

LOGS = st.lists(st.floats(-0.5, 0.5), min_size=2, max_size=12).filter(lambda logs: np.std(logs) > 1e-3)


@given(LOGS, st.floats(0.5, 0.999))
def test_interval_and_p_value_match_the_paired_t_test(logs: list[float], confidence: float) -> None:
    ours = ratio_interval(logs, confidence)
    theirs = stats.ttest_rel(logs, np.zeros(len(logs)))
    interval = theirs.confidence_interval(confidence)
    assert ours.p_value == pytest.approx(theirs.pvalue, rel=1e-9, abs=1e-15)
    assert (np.log(ours.low), np.log(ours.high)) == pytest.approx((interval.low, interval.high), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("logs", [[], [0.1], 0.1, [0.1, np.nan], [0.1, np.inf], [0.1, 0.1, 0.1], [0.1, 0.1 + 1e-15]])
def test_what_allows_no_interval_is_an_error(logs: object) -> None:
    with pytest.raises(ValueError, match=r"pairs|finite|differ"):
        ratio_interval(logs, 0.95)  # type: ignore[arg-type]


NUMBERS = st.integers(-500, 500).map(lambda value: value / 50)
LINES = st.lists(st.tuples(NUMBERS, NUMBERS), min_size=2, max_size=6)


def holds(stretch: Range | None, x: float) -> bool:
    return stretch is not None and stretch[0] < x < stretch[1]


@given(LINES, st.floats(0.001, 1000), st.sampled_from([0.8, 0.95]))
def test_the_sign_at_each_place_is_that_of_students_interval(lines, x: float, confidence: float) -> None:
    found = crossing([p for p, _ in lines], [s for _, s in lines], confidence)
    interval = t_interval([p + x * s for p, s in lines], confidence)
    assert interval is not None
    low, high = interval
    if min(abs(low), abs(high)) < 1e-6 * (1 + max(abs(low), abs(high))):
        return  # on the very edge rounding decides
    assert (holds(found.below, x), holds(found.above, x)) == (high < 0, low > 0)


def test_the_ends_are_those_of_fiellers_formula() -> None:
    p, s = np.array([-3.1, -2.9, -3.3, -3.0]), np.array([0.9, 1.1, 1.05, 1.0])
    found = crossing(p, s, 0.95)
    (v_pp, v_ps), (_, v_ss) = np.cov(p, s) / 4
    t, ratio = 3.182446305284263, -p.mean() / s.mean()
    g = t**2 * v_ss / s.mean() ** 2
    middle = ratio + g / (1 - g) * (ratio + v_ps / v_ss)
    inside = v_pp + 2 * ratio * v_ps + ratio**2 * v_ss - g * (v_pp - v_ps**2 / v_ss)
    half = t / (s.mean() * (1 - g)) * math.sqrt(inside)
    assert (found.at, found.below) == (pytest.approx(ratio), pytest.approx((0, middle - half)))
    assert found.above == pytest.approx((middle + half, math.inf))


SPREAD = np.array([-0.1, 0.0, 0.1])


@pytest.mark.parametrize(
    ("intercept", "slope", "expected"),
    [
        (1.0, -1.0, {"below": "from", "above": "to"}),
        (-1.0, 1.0, {"below": "to", "above": "from"}),
        (-1.0, -1.0, {"below": "all"}),
        (1.0, 1.0, {"above": "all"}),
        (1.0, 0.0, {"above": "to"}),
        (-1.0, 0.0, {"below": "to"}),
        (0.0, 1.0, {"above": "from"}),
        (0.0, -1.0, {"below": "from"}),
        (0.0, 0.0, {}),
    ],
)
def test_signs_are_sure_only_where_lines_are_far_from_zero(
    intercept: float, slope: float, expected: dict[str, str]
) -> None:
    found = crossing(intercept + SPREAD, slope + SPREAD[[1, 2, 0]], 0.95)

    def kind(stretch: Range | None) -> str:
        if stretch is None:
            return ""
        return {(True, True): "all", (True, False): "to", (False, True): "from"}[
            stretch[0] == 0, stretch[1] == math.inf
        ]

    assert {name: kind(getattr(found, name)) for name in ("below", "above") if kind(getattr(found, name))} == expected


@pytest.mark.parametrize(
    ("slope", "spread"), [(-2.0, 0.3), (-2.0, 3.0), (-0.05, 0.3)], ids=["sure", "noisy", "nearly parallel"]
)
@pytest.mark.parametrize("pairs", [2, 3, 8])
def test_the_true_crossing_has_neither_sign_at_the_requested_confidence(
    slope: float, spread: float, pairs: int
) -> None:
    random, draws, confidence = np.random.default_rng(18), 2000, 0.9
    covariance = spread**2 * np.array([[1.0, -0.6], [-0.6, 1.0]])
    lines = random.multivariate_normal([-5 * slope, slope], covariance, size=(draws, pairs))
    held = 0
    for each in lines:
        found = crossing(each[:, 0], each[:, 1], confidence)
        held += not holds(found.below, 5.0) and not holds(found.above, 5.0)
    assert held / draws == pytest.approx(confidence, abs=3.5 * math.sqrt(confidence * (1 - confidence) / draws))
