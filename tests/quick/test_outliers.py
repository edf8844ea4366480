"""An outlier among launches is told and marked, by a rule that seldom errs, and nothing is dropped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_records import make_plan, make_record, make_spec, save

from rollout_bench.analysis.timed.collection import collect
from rollout_bench.analysis.timed.comparison import CUTOFFS, LEAST, cutoff, marked, modified_z, outliers
from rollout_bench.analysis.timed.launches import measure
from rollout_bench.contracts.record import Flag
from rollout_bench.report.summary import summarise

RATES = st.lists(st.floats(1.0, 1e5), min_size=1, max_size=15)


@given(st.floats(1.0, 1e6), st.integers(1, 15))
def test_equal_launches_have_no_outlier(value: float, n: int) -> None:
    assert outliers([value] * n) == []


@given(RATES, st.integers(-8, 8))
def test_the_unit_does_not_matter(rates: list[float], power: int) -> None:
    assert outliers([rate * 2.0**power for rate in rates]) == outliers(rates)


@given(RATES, st.randoms(use_true_random=False))
def test_the_order_of_launches_does_not_matter(rates: list[float], source: np.random.Generator) -> None:
    order = list(range(len(rates)))
    source.shuffle(order)
    assert sorted(order[i] for i in outliers([rates[i] for i in order])) == outliers(rates)


@given(RATES)
def test_fewer_than_half_of_the_launches_are_outliers_and_never_of_three(rates: list[float]) -> None:
    found = outliers(rates)
    assert len(found) <= len(rates) // 2
    if len(rates) < LEAST:
        assert found == []


@given(st.integers(4, 12), st.integers(0, 11), st.sampled_from([0.7, 0.9, 1.1, 1.5]))
def test_one_launch_far_off_is_found(n: int, place: int, factor: float) -> None:
    rates = [1000.0 + i for i in range(n)]
    rates[place % n] *= factor
    assert outliers(rates) == [place % n]


def test_what_is_not_relevant_is_no_outlier() -> None:
    assert outliers([1000.0, 1000.0, 1000.0, 1000.1, 1009.0]) == []
    assert outliers([1000.0, 1000.0, 1000.0, 1000.1, 1011.0]) == [4]


@pytest.mark.parametrize("n", CUTOFFS)
def test_one_experiment_in_twenty_has_an_outlier_by_chance(n: int) -> None:
    experiments = np.random.default_rng(n).normal(1000.0, 30.0, size=(4000, n))
    share = np.mean([np.abs(modified_z(rates)).max() > cutoff(n) for rates in experiments])
    assert share == pytest.approx(0.05, abs=0.015)


def test_an_outlier_is_marked_in_the_summary_and_still_counts(tmp_path: Path) -> None:
    spec = make_spec()
    save(tmp_path, *(make_record(spec, i, [rate] * 3) for i, rate in enumerate((400.0, 404.0, 398.0, 300.0, 401.0))))
    summary = summarise(collect(tmp_path, make_plan([spec], launches=5)))
    assert "outlier_launch 1/5" in summary.markdown
    assert "launch 3: outlier_launch (warning): 300 output tokens/s, -25.0 % off the median of 5" in summary.markdown
    assert "380.6" in summary.markdown  # the mean of all five


def test_an_invalid_launch_is_neither_an_outlier_nor_a_measure_for_others() -> None:
    doubt = Flag(code="token_count", severity="invalid", sentence="Other tokens.")
    rates = (400.0, 404.0, 398.0, 300.0)
    launches = [measure(make_record(None, i, [rate], flags=[doubt] * (rate == 300))) for i, rate in enumerate(rates)]
    assert marked(launches) == tuple(launches)
