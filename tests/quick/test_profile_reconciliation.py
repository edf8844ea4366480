"""Reconciliation: agreement where intervals meet, and a reason where nothing can be compared."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from synthetic_profiles import W8A8, make_profiled

from rollout_bench.analysis.inside.reconciliation import Reconciliation, profile_report
from rollout_bench.analysis.timed.comparison import Comparison
from rollout_bench.plan.config import ComparisonSettings

SETTINGS = ComparisonSettings()

TRUE = (0.5 + 31 * 0.03) / (0.4 + 31 * 0.025)
"""The speed-up of a pass of 1 prefill and 31 decode steps: 1.43 s to 1.175 s, whatever the profiler costs."""


def reconciled(
    speedup: float | None = TRUE, width: float = 0.01, of_baseline: Any = None, **of_own: Any
) -> Reconciliation:
    measured = None if speedup is None else (speedup, speedup * (1 - width), speedup * (1 + width))
    own = make_profiled("w8a8", of_own.pop("phases", W8A8), baseline="bf16", speedup=measured, **of_own)
    (found,) = profile_report([make_profiled(**(of_baseline or {})), own], SETTINGS).reconciliations
    return found


def test_the_prediction_is_that_of_the_steps_without_the_profiler() -> None:
    found = reconciled(overhead=1.5, of_baseline={"overhead": 1.1})
    assert found.prediction is not None
    assert found.prediction.speedup == pytest.approx(TRUE * 1.5 / 1.1)
    assert found.prediction.baseline_s == pytest.approx(1.43 / 1.1)
    assert found.prediction.own_s == pytest.approx(1.175 / 1.5)


def test_the_prediction_has_the_interval_of_its_steps_scatter() -> None:
    found = reconciled(scatter=(0.98, 1.0, 1.02)).prediction
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.speedup < found.high
    single = reconciled(scatter=(1.0,)).prediction
    assert single is not None
    assert (single.speedup, single.low, single.high) == (pytest.approx(TRUE), None, None)


def test_what_was_measured_as_predicted_agrees() -> None:
    found = reconciled()
    assert found.verdict == "agree"
    assert found.ratio == pytest.approx(1)


def test_a_wide_measured_interval_agrees_with_much() -> None:
    assert reconciled(TRUE * 0.9, width=0.15).verdict == "agree"
    assert reconciled(TRUE * 0.9, width=0.01).verdict == "apart"


def test_a_difference_below_the_relevant_one_is_none() -> None:
    assert reconciled(TRUE * 1.005, width=1e-4, scatter=(1.0,)).verdict == "agree"
    assert reconciled(TRUE * 1.02, width=1e-4, scatter=(1.0,)).verdict == "apart"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"measured": False}, "neither offline nor online measured passes of both"),
        ({"speedup": None}, "no measured speed-up"),
        ({"steps": {"prefill": 1.0, "mixed": 2.0, "decode": 31.0}, "phases": {"decode": W8A8["decode"]}},
         "prefill and mixed steps of the pass are not profiled"),
        ({"phases": {"mixed": W8A8["prefill"]}, "steps": {"decode": 31.0}, "tokens": {"mixed": 9},
          "of_baseline": {"steps": {"decode": 31.0}}},
         "no phase of the pass is profiled in both"),
    ],
)  # fmt: skip
def test_what_can_not_be_compared_says_why(change: dict[str, Any], reason: str) -> None:
    found = reconciled(**change)
    assert (found.verdict, found.reason) == ("unknown", reason)


def test_without_an_interval_there_is_a_ratio_and_no_verdict() -> None:
    own = make_profiled("w8a8", W8A8, baseline="bf16")
    own = replace(own, comparison=Comparison(speedup=TRUE, verdict="unknown", reason="1 pair of launches"))
    (found,) = profile_report([make_profiled(), own], SETTINGS).reconciliations
    assert (found.verdict, found.reason) == ("unknown", "1 pair of launches")
    assert found.ratio == pytest.approx(1)


def test_nothing_is_compared_without_its_baseline() -> None:
    assert profile_report([make_profiled("w8a8", W8A8, baseline="bf16")], SETTINGS).reconciliations == ()
    with pytest.raises(ValueError, match="same place"):
        profile_report([make_profiled(), make_profiled()], SETTINGS)


def test_mixed_steps_are_taken_as_prefill_where_only_that_is_profiled() -> None:
    steps = {"prefill": 1.0, "mixed": 3.0, "decode": 31.0}
    found = reconciled(width=1e-4, scatter=(1.0,), steps=steps, of_baseline={"steps": steps})
    assert found.prediction is not None
    assert found.prediction.taken_for == {"mixed": "prefill"}
    assert found.prediction.speedup == pytest.approx((4 * 0.5 + 31 * 0.03) / (4 * 0.4 + 31 * 0.025))
    assert found.verdict == "apart"
