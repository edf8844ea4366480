"""Reconciliation: agreement where intervals meet, and a difference with the reason that speaks for itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from synthetic_profiles import BF16, W8A8, make_profiled

from rollout_bench.analysis.inside.profiles import ProfiledExperiment
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
    assert found.prediction.traces_alone == pytest.approx(TRUE)
    assert found.prediction.baseline_s == pytest.approx(1.43 / 1.1)


def test_the_prediction_has_the_interval_of_its_steps_scatter() -> None:
    found = reconciled(scatter=(0.98, 1.0, 1.02)).prediction
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.speedup < found.high
    single = reconciled(scatter=(1.0,)).prediction
    assert single is not None
    assert (single.speedup, single.low, single.high) == (pytest.approx(TRUE), None, None)


def test_parts_of_the_pass_add_up_to_what_it_saves() -> None:
    found = reconciled().prediction
    assert found is not None
    assert sum(change.saved for change in found.changes) == pytest.approx(found.baseline_s - found.own_s)
    linear = sum(change.saved for change in found.changes if change.part[0] == "linear")
    assert linear == pytest.approx((0.13 + 31 * 0.007) / 1.25)


def test_what_was_measured_as_predicted_agrees() -> None:
    found = reconciled()
    assert found.verdict == "agree"
    assert found.ratio == pytest.approx(1)
    assert found.reasons == ()


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


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"elapsed_s": 1.5}, "the steps of w8a8 add up to 0.94 s where a pass takes 1.5 s: time outside steps"),
        ({"of_baseline": {"elapsed_s": 0.8}},
         "the steps of bf16 add up to 1.14 s where a pass takes 0.8 s: slower steps in the profile's launch"),
        ({"of_baseline": {"elapsed_s": 1.5}}, None),  # too few steps of the baseline would lower the prediction
    ],
)  # fmt: skip
def test_a_difference_comes_with_the_reason_that_speaks_for_itself(change: dict[str, Any], said: str | None) -> None:
    found = reconciled(0.5, width=0.001, **change)
    assert found.verdict == "apart"
    if said is None:
        assert found.reasons == ()
    else:
        assert any(reason.startswith(said) for reason in found.reasons), found.reasons


def test_no_reason_is_made_up() -> None:
    found = reconciled(TRUE * 0.9)
    assert found.verdict == "apart"
    assert found.reasons == ()


def test_a_side_is_only_blamed_where_it_moves_the_prediction_the_right_way() -> None:
    blamed = reconciled(TRUE * 0.8, width=0.001, elapsed_s=1.3)
    assert ["w8a8 add up" in reason for reason in blamed.reasons] == [True]
    assert reconciled(TRUE * 1.2, width=0.001, elapsed_s=1.3).reasons == ()


def test_steps_that_nobody_timed_without_the_profiler_are_named() -> None:
    def untimed(profiled: ProfiledExperiment) -> ProfiledExperiment:
        steps = [step for step in profiled.record.steps if step.profiled]
        return replace(profiled, record=profiled.record.model_copy(update={"steps": steps}))

    own = make_profiled("w8a8", W8A8, baseline="bf16", speedup=(2, 1.99, 2.01), overhead=1.0)
    baseline = make_profiled(phases=BF16, overhead=1.0)
    (found,) = profile_report([untimed(baseline), untimed(own)], SETTINGS).reconciliations
    assert found.prediction is not None
    assert found.prediction.with_profiler == ("prefill", "decode")
    assert [reason for reason in found.reasons if reason.startswith("profiler overhead")]
