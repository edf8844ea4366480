"""The statistics behind verdicts: against scipy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rollout_bench.analysis.stats.intervals import ratio_interval

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
