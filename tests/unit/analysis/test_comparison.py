"""Speed-ups: their value, their verdict, and what they are measured against."""

import functools
import math
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from scipy import stats
from synthetic_records import make_record

from rollout_bench.analysis.timed.comparison import Comparison, compare_launches, judge
from rollout_bench.analysis.timed.launches import LaunchMeasures
from rollout_bench.plan.config import ComparisonSettings

BY_LAUNCH = st.dictionaries(st.integers(0, 9), st.floats(50, 200), min_size=1, max_size=6)
MIRROR = {"faster": "slower", "slower": "faster"}
DEFAULT = ComparisonSettings()


def indexed(*values: float) -> dict[int, float]:
    return dict(enumerate(values))


record = functools.cache(lambda launch: make_record(launch=launch))


def compare(
    values: Mapping[int, float], baseline: Mapping[int, float], metric: str = "goodput_requests_per_s"
) -> Comparison:
    """Return the comparison of launches with these values, by their index, of a number of whole launches."""
    sides = [[LaunchMeasures(record(n), {metric: value}) for n, value in side.items()] for side in (values, baseline)]
    return compare_launches(*sides, metric, DEFAULT.confidence)


def judged(
    values: Mapping[int, float], baseline: Mapping[int, float], settings: ComparisonSettings = DEFAULT, among: int = 1
) -> Comparison:
    """Return the comparison in a table with `among` such comparisons."""
    return judge([compare(values, baseline)] * among, settings)[0]


@given(BY_LAUNCH, BY_LAUNCH, st.integers(1, 5))
@example(indexed(110.0, 111.0, 112.5), indexed(100.0, 101.0, 102.0), 1)
def test_swapping_the_sides_inverts_the_ratio_and_mirrors_the_verdict(
    a: dict[int, float], b: dict[int, float], among: int
) -> None:
    there, back = judged(a, b, among=among), judged(b, a, among=among)
    assume(there.speedup is not None)
    assert there.speedup is not None
    assert back.speedup is not None
    assert there.speedup * back.speedup == pytest.approx(1)
    assert {i: 1 / ratio for i, ratio in there.pairs.items()} == pytest.approx(dict(back.pairs))
    assert (there.unpaired, there.baseline_unpaired) == (back.baseline_unpaired, back.unpaired)
    # At the very edge of the relevant difference rounding may decide.
    assume(abs(max(there.speedup, back.speedup) - 1.01) > 1e-9)
    assert back.verdict == MIRROR.get(str(there.verdict), there.verdict)
    if there.p_value is not None:
        assert there.p_adjusted == pytest.approx(back.p_adjusted)


@pytest.mark.parametrize(
    ("values", "baseline", "expected"),
    [
        (indexed(110, 111, 112.5), indexed(100, 101, 102), "faster"),
        (indexed(100, 101, 102), indexed(110, 111, 112.5), "slower"),
        (indexed(100, 111, 112), indexed(100, 101, 102), "undetected"),
        (indexed(100.6, 100.7, 100.75), indexed(100, 100.1, 100.1), "irrelevant"),
        (indexed(99.4, 99.5, 99.55), indexed(100, 100.1, 100.1), "irrelevant"),
        (indexed(110, 111), indexed(100, 101), "faster"),
        (indexed(110, 120), indexed(100, 101), "undetected"),
        (indexed(200), indexed(100, 101, 102), "unknown"),
        (indexed(200, 200, 200), indexed(100, 100, 100), "unknown"),
    ],
)
def test_a_verdict_takes_significance_and_relevance(
    values: dict[int, float], baseline: dict[int, float], expected: str
) -> None:
    comparison = judged(values, baseline)
    assert comparison.verdict == expected
    assert (comparison.reason != "") == (expected == "unknown" and len(comparison.pairs) > 1)


def test_drift_that_both_sides_share_does_not_hide_a_difference() -> None:
    drifting = indexed(100, 130, 80, 160)
    comparison = judged({i: 1.05 * v * (1 + 0.001 * i) for i, v in drifting.items()}, drifting)
    assert comparison.verdict == "faster"
    assert comparison.speedup == pytest.approx(1.05, rel=0.002)


def test_a_verdict_alone_is_none_among_many_comparisons() -> None:
    values, baseline = indexed(110, 111, 117), indexed(100, 101, 102)
    alone, among = judged(values, baseline), judged(values, baseline, among=10)
    assert alone.verdict == "faster"
    assert among.verdict == "undetected"
    assert alone.p_value is not None
    assert among.p_adjusted == pytest.approx(10 * alone.p_value)
    assert (among.low, among.high) == (alone.low, alone.high)


def test_untestable_comparisons_take_no_share_of_the_error() -> None:
    tested = compare(indexed(110, 111, 117), indexed(100, 101, 102))
    family = [Comparison(is_baseline=True), tested, compare(indexed(1), indexed(2)), Comparison(reason="none")]
    found = judge(family, DEFAULT)
    assert found[1].p_adjusted == tested.p_value
    assert [found[0], found[2], found[3]] == [family[0], family[2], family[3]]


@pytest.mark.parametrize("baselines", [1, 2, 6])
def test_tables_without_differences_show_one_in_at_most_five_percent(baselines: int) -> None:
    rng, settings = np.random.default_rng(0), ComparisonSettings(relevant_difference=0)
    false = 0
    for _ in range(1000):
        rates = 100 * np.exp(0.03 * rng.normal(size=(baselines + 6, 4)))
        of = [number % baselines for number in range(6)]
        family = [
            compare(indexed(*own), indexed(*rates[baseline]))
            for own, baseline in zip(rates[baselines:], of, strict=True)
        ]
        judged_family = judge(family, settings, baselines=of)
        false += any(comparison.verdict in ("faster", "slower") for comparison in judged_family)
    assert stats.binomtest(false, 1000, 0.05, alternative="greater").pvalue > 1e-4


def test_only_paired_launches_are_compared_and_unpaired_ones_are_counted() -> None:
    comparison = judged({0: 900.0, 1: 220.0, 2: 242.0}, {1: 100.0, 2: 100.0, 5: 1.0, 6: 1.0})
    assert comparison.speedup == pytest.approx(math.sqrt(2.2 * 2.42))
    assert comparison.pairs == pytest.approx({1: 2.2, 2: 2.42})
    assert (comparison.unpaired, comparison.baseline_unpaired) == (1, 2)
    apart = judged({0: 200.0, 1: 210.0}, {2: 100.0, 3: 100.0})
    assert (apart.speedup, apart.verdict, apart.launches_missing) == (None, "unknown", 2)
    assert "no launch has a partner" in apart.reason


def test_a_single_pair_gives_a_ratio_without_an_interval() -> None:
    comparison = judged({0: 120.0}, {0: 100.0})
    assert comparison.speedup == pytest.approx(1.2)
    assert (comparison.low, comparison.p_adjusted, comparison.verdict) == (None, None, "unknown")
    assert comparison.launches_missing == 1


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.nan, math.inf])
def test_a_measurement_that_is_no_positive_number_gives_no_verdict(wrong: float) -> None:
    good, bad = indexed(110, 111, 112), indexed(100, wrong, 102)
    for values, baseline, whose in ((good, bad, "its baseline has"), (bad, good, "it has")):
        comparison = judged(values, baseline)
        assert (comparison.speedup, comparison.verdict) == (None, "unknown")
        assert comparison.reason == f"{whose} a launch (1) whose measurement is zero or no number"


def test_of_times_less_is_better() -> None:
    slow, quick = indexed(2.0, 2.1, 2.2), indexed(1.0, 1.06, 1.1)
    (comparison,) = judge([compare(quick, slow, "startup_s")], DEFAULT)
    assert comparison.speedup == pytest.approx(2, rel=0.02)
    assert comparison.verdict == "faster"
