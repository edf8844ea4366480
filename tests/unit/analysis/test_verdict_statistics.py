"""The statistics behind verdicts: against scipy where it has them, by property, and by simulation of a known truth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rollout_bench.analysis.stats.intervals import Array, ratio_interval

LOGS = st.lists(st.floats(-0.5, 0.5), min_size=2, max_size=12).filter(lambda logs: np.std(logs) > 1e-3)
TRIALS = 20_000


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def agrees(hits: Array, chance: float) -> bool:
    """Return whether the share of `hits` can be `chance`: inside its own binomial interval at 99.99 %."""
    interval = stats.binomtest(int(hits.sum()), hits.size).proportion_ci(0.9999)
    return bool(interval.low <= chance <= interval.high)


@given(LOGS, st.floats(0.5, 0.999))
def test_interval_and_p_value_match_the_paired_t_test(logs: list[float], confidence: float) -> None:
    ours = ratio_interval(logs, confidence)
    theirs = stats.ttest_rel(logs, np.zeros(len(logs)))
    interval = theirs.confidence_interval(confidence)
    assert ours.p_value == pytest.approx(theirs.pvalue, rel=1e-9, abs=1e-15)
    assert (np.log(ours.low), np.log(ours.high)) == pytest.approx((interval.low, interval.high), rel=1e-9, abs=1e-9)


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
