"""Drafts are planned where the engine can accept them so."""

from typing import Any

import planned
import pytest

from rollout_bench.contracts.drafts import drafts_of

SYNTHETIC = {
    "method": "ngram",
    "num_speculative_tokens": 3,
    "rejection_sample_method": "synthetic",
    "synthetic_acceptance_length": 2.5,
}


def by_chance(platform: str) -> dict[str, Any]:
    settings = {"drafts": {"engine_args": {"speculative_config": SYNTHETIC}}}
    return {
        "platform": platform,
        "quants": ["bf16"],
        "settings": ["default", *settings],
        "setting_settings": settings,
        "baseline": {"quant": None, "setting": "default"},
    }


def test_drafts_are_not_accepted_by_chance_on_a_cpu() -> None:
    matrix = planned.planned(by_chance("cpu"))
    (skipped,) = matrix.skipped
    assert skipped.reason == "rejection_sample_method: synthetic: vLLM's sampling on a CPU has no synthetic acceptance"
    assert skipped.remedy.startswith("measure it on a GPU, or leave rejection_sample_method")
    assert [experiment.spec.setting for experiment in matrix.experiments] == [None]


def test_drift_is_not_measured_of_tokens_that_are_accepted_by_chance() -> None:
    drift = {"modes": ["drift"], "drift": {"prompts": 8, "tokens": 4, "batch_sizes": [8, 1]}}
    (skipped,) = planned.planned(by_chance("cuda") | drift).skipped
    assert skipped.setting == "drafts"
    assert "are not the model's" in skipped.reason


@pytest.mark.parametrize("platform", ["cuda", "ascend"])
def test_drafts_are_accepted_by_chance_on_an_accelerator(platform: str) -> None:
    matrix = planned.planned(by_chance(platform))
    assert matrix.skipped == []
    drafts = drafts_of(matrix.experiments[-1].spec.engine.args)
    assert drafts is not None
    assert (drafts.method, drafts.tokens, drafts.rates) == ("ngram", 3, (1.0, 0.5, 0.0))
    assert drafts.asked_length == 2.5
