"""The rule that ends launching: what it stops at, and that looking often finds no more than looking once may."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special

from rollout_bench.analysis.stats.intervals import ratio_interval
from rollout_bench.analysis.stats.sequential import Looks, StoppingRule

RULE = StoppingRule(half_width=0.01, min_pairs=3, max_pairs=12, confidence=0.95)


def false_share(d: np.ndarray, looks: Looks, level: float) -> float:
    """Return the share of series [series, pairs] with a p value below `level` at some look."""
    least = np.ones(len(d))
    for pairs in range(looks.first, looks.last + 1):
        least = np.minimum(least, ratio_interval(d[:, :pairs], 0.95).p_value)
    return float((least <= level).mean())


@pytest.mark.parametrize("looks", [Looks(3, 12), Looks(2, 5), Looks(3, 20)])
def test_looking_after_each_pair_finds_something_false_as_often_as_is_allowed_and_no_more(looks: Looks):
    d = np.random.default_rng(7).normal(0, 0.02, (40_000, looks.last))
    assert false_share(d, looks, looks.each(0.05)) == pytest.approx(0.05, abs=0.004)
    # without the rule it would be far more
    assert false_share(d, looks, 0.05) > 0.11


@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])
def test_the_interval_of_the_pairs_at_which_the_rule_stops_holds_the_truth_as_often_as_it_says(scale: float):
    d = np.random.default_rng(11).normal(np.log(1.05), scale * 0.01, (20_000, 12))
    stopped = RULE.stopped(d)
    missed = 0.0
    for pairs in np.unique(stopped):
        interval = ratio_interval(d[stopped == pairs, :pairs], RULE.level)
        missed += float(((interval.low > 1.05) | (interval.high < 1.05)).sum())
    assert missed / len(d) <= 0.054


def test_a_rule_stops_at_the_first_pair_whose_interval_is_narrow_enough_and_else_at_the_last():
    d = np.log([1.1, 1.101, 1.1005, 1.1, 1.1])
    rule = StoppingRule(half_width=0.01, min_pairs=3, max_pairs=5, confidence=0.95)
    assert rule.stopped(d) == 3
    interval = ratio_interval(d[:3], rule.level)
    assert interval.high / interval.ratio - 1 <= 0.01
    assert rule.stopped(np.log([1.0, 1.2, 0.9, 1.1, 1.0])) == 5


def test_copies_of_one_launch_are_never_narrow():
    assert not RULE.narrow(np.full(12, 0.3)).any()


@given(st.lists(st.floats(-0.1, 0.1), min_size=12, max_size=12), st.floats(0.001, 0.1), st.floats(1.0, 10.0))
def test_a_wider_goal_never_asks_for_more_pairs(d: list[float], half_width: float, factor: float):
    narrow, wide = (StoppingRule(width, 3, 12, 0.95) for width in (half_width, factor * half_width))
    assert wide.stopped(d) <= narrow.stopped(d)


@given(st.lists(st.floats(-0.1, 0.1), min_size=12, max_size=12), st.floats(-3, 3))
def test_the_rule_does_not_look_at_how_large_the_difference_is(d: list[float], shift: float):
    # widths up to rounding: a rule just at its goal may fall either way
    moved = np.asarray(d) + shift
    for rule in (StoppingRule(0.0123, 3, 12, 0.95), StoppingRule(0.0377, 3, 12, 0.95)):
        widths = [rule.narrow(x).astype(int) for x in (d, moved)]
        differ = np.flatnonzero(widths[0] != widths[1])
        for at in differ:
            spread = np.std(d[: at + 1], ddof=1)
            half = special.stdtrit(at, 0.5 + rule.level / 2) * spread / np.sqrt(at + 1)
            assert half == pytest.approx(np.log1p(rule.half_width), rel=1e-6) or spread < 1e-12


some_looks = st.sampled_from([Looks(5, 5), Looks(2, 4), Looks(3, 5), Looks(3, 12)])


@given(st.floats(0, 1), st.floats(0, 1), some_looks)
def test_the_p_value_over_all_looks_grows_with_that_of_one_and_stays_within_its_bounds(
    one: float, other: float, looks: Looks
):
    low, high = sorted((one, other))
    assert looks.overall(low) <= looks.overall(high)
    assert low <= looks.overall(low) <= min(1.0, (looks.last - looks.first + 1) * low) + 1e-12


@given(st.floats(1e-9, 0.5), some_looks)
def test_the_level_of_each_look_belongs_to_the_overall_one(level: float, looks: Looks):
    each = looks.each(level)
    assert level / (looks.last - looks.first + 1) <= each * (1 + 1e-12)
    assert each <= level
    assert looks.overall(each) <= level * (1 + 1e-9) + 1e-5


def test_one_look_is_a_plain_t_test():
    assert Looks(5, 5).each(0.05) == 0.05
    assert Looks(5, 5).overall(0.01) == 0.01
