"""Prediction: an interval that holds, and nothing lost between parts and whole."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout_bench.analysis.inside.breakdown import changes, linear_with_quantize
from rollout_bench.analysis.inside.profiles import CATEGORIES, PHASES, ROLES
from rollout_bench.analysis.inside.reconciliation import pass_time, ratio_interval, ratio_of_ratios
from rollout_bench.contracts.inside import Phase
from rollout_bench.contracts.spec import Role

TIMES = st.floats(min_value=1e-3, max_value=1e6)
PARTS = st.dictionaries(
    st.tuples(st.sampled_from(CATEGORIES), st.sampled_from(["", *ROLES])), TIMES, min_size=1, max_size=8
)
SCALES = st.floats(min_value=1e-2, max_value=1e2)


def test_phases_and_roles_are_those_of_the_record() -> None:
    assert set(PHASES) == set(get_args(Phase))
    assert set(ROLES) == set(get_args(Role))


@given(PARTS, PARTS)
def test_the_net_is_the_sum_of_the_parts(
    baseline: dict[tuple[str, str], float], own: dict[tuple[str, str], float]
) -> None:
    found = changes(baseline, own)
    whole = sum(baseline.values()) - sum(own.values())
    scale = max(sum(baseline.values()), sum(own.values()))
    assert sum(change.saved for change in found) == pytest.approx(whole, abs=1e-9 * scale)
    assert len({change.part for change in found}) == len(found)
    net = [change for change in found if change.part[0] in ("linear", "quantize")]
    assert linear_with_quantize(found).saved == pytest.approx(sum(c.saved for c in net), abs=1e-9 * scale)


def test_a_part_of_one_side_has_no_speed_up() -> None:
    by_part = {change.part: change for change in changes({("a", ""): 2.0}, {("quantize", ""): 3.0})}
    assert [change.speedup for change in by_part.values()] == [None, None]
    assert by_part["quantize", ""].saved == -3


def test_the_time_of_a_pass_weighs_phases_by_their_steps() -> None:
    found = pass_time([(1, [0.4, 0.6]), (31, [0.02, 0.04])])
    assert found.total == pytest.approx(0.5 + 31 * 0.03)
    assert found.terms is not None
    # s^2 of two values is half their squared difference; of their mean half of that
    assert [v for v, _ in found.terms] == pytest.approx([0.01 / found.total**2, 31**2 * 0.0001 / found.total**2])
    assert [freedom for _, freedom in found.terms] == [1, 1]


def test_a_single_step_leaves_the_scatter_unknown_unless_the_pass_has_none_of_it() -> None:
    steady = pass_time([(1, [1.0, 1.1])])
    assert ratio_interval(pass_time([(1, [0.5]), (3, [0.1, 0.2])]), steady, 0.95) is None
    assert ratio_interval(pass_time([(0, [0.5]), (3, [0.1, 0.2])]), steady, 0.95) is not None
    assert ratio_interval(pass_time([(1, [1.0, 1.0])]), pass_time([(1, [1.0, 1.0])]), 0.95) is None


def test_the_interval_holds_the_true_ratio_as_often_as_it_says() -> None:
    generator = np.random.default_rng(5)
    held = 0
    for _ in range(400):
        sides = [
            pass_time([(2, generator.normal(prefill, 0.05 * prefill, 4)), (31, generator.normal(decode, 0.004, 8))])
            for prefill, decode in ((0.5, 0.03), (0.4, 0.025))
        ]
        interval = ratio_interval(sides[0], sides[1], 0.9)
        assert interval is not None
        held += interval[0] <= (1 + 31 * 0.03) / (0.8 + 31 * 0.025) <= interval[1]
    assert 0.87 <= held / 400 <= 0.97


@given(SCALES, SCALES, st.floats(1.001, 3), st.floats(1.001, 3))
def test_a_ratio_of_ratios_mirrors_when_its_sides_swap(one: float, other: float, wide: float, narrow: float) -> None:
    ends = (one / wide, one * narrow), (other / narrow, other * wide)
    low, high = ratio_of_ratios(one, ends[0], other, ends[1])
    assert low <= one / other <= high
    assert ratio_of_ratios(other, ends[1], one, ends[0]) == pytest.approx((1 / high, 1 / low))
    alone = ratio_of_ratios(one, (one, one), other, ends[1])
    assert alone == pytest.approx((one / ends[1][1], one / ends[1][0]))
    assert math.log(high / low) >= math.log(alone[1] / alone[0])
