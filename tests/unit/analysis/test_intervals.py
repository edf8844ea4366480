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


SPREAD = np.array([-0.1, 0.0, 0.1])
EVERYWHERE = (0, math.inf)


@pytest.mark.parametrize(
    ("intercept", "slope", "below", "above"),
    [
        (1.0, -1.0, (1.291, math.inf), (0, 0.774)),
        (-1.0, 1.0, (0, 0.774), (1.291, math.inf)),
        (-1.0, -1.0, EVERYWHERE, None),
        (1.0, 1.0, None, EVERYWHERE),
        (1.0, 0.0, None, (0, 4.431)),
        (0.0, 1.0, None, (0.226, math.inf)),
        (0.0, 0.0, None, None),
    ],
)
def test_signs_are_sure_only_where_lines_are_far_from_zero(
    intercept: float, slope: float, below: Range | None, above: Range | None
) -> None:
    found = crossing(intercept + SPREAD, slope + SPREAD[[1, 2, 0]], 0.95)
    assert (found.below, found.above) == (
        below and pytest.approx(below, abs=0.001),
        above and pytest.approx(above, abs=0.001),
    )
    assert (found.at == pytest.approx(1)) == (intercept * slope < 0)
