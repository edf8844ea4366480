"""Profiles of the harness nop, which sends no load and measures the start of the engine."""

from __future__ import annotations

from rollout_bench.contracts.modes import STARTUP
from rollout_bench.llmd.content import Keys
from rollout_bench.llmd.meaning import Meaning, MeasuredHere, check_model

TOKENS = 16
"""Tokens of the single prompt. A start ends with its first output token."""


def meaning_of(keys: Keys, served: MeasuredHere) -> Meaning:
    """Return the workload of a nop profile: mode startup with one short request.

    Raises:
        UserError: if the profile names a model that the config does not measure.
    """
    check_model(keys, "model_name", served)
    keys.neutral("pvc_name")  # results are kept on kubernetes.results_claim
    one = {"prompts": 1, "samples_per_prompt": 1, "prompt_tokens": TOKENS, "output_tokens": 1}
    return Meaning(workload=one, mode=STARTUP.name)
