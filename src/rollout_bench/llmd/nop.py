"""Profiles of the harness nop: nothing is sent, and the start of the engine is looked at."""

from __future__ import annotations

from rollout_bench.contracts.modes import STARTUP
from rollout_bench.llmd.content import Keys
from rollout_bench.llmd.meaning import Meaning, MeasuredHere, check_model

TOKENS = 16
"""Of the one prompt whose first token ends a start."""


def meaning_of(keys: Keys, served: MeasuredHere) -> Meaning:
    """Return what a nop profile means: modes: [startup], and one short request.

    Raises:
        UserError: a key that there is not, or another model than the config has.
    """
    check_model(keys, "model_name", served)
    keys.neutral("pvc_name")  # results are kept on kubernetes.results_claim
    one = {"prompts": 1, "samples_per_prompt": 1, "prompt_tokens": TOKENS, "output_tokens": 1}
    return Meaning(workload=one, mode=STARTUP.name)
