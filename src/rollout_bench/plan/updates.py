"""Refusals of modes that update an engine's weights."""

from rollout_bench.contracts.modes import MODES
from rollout_bench.contracts.spec import Spec
from rollout_bench.plan.refusals import refuse

WITHOUT_WEIGHTS = ("ngram", "suffix")
"""Methods of speculative decoding without a draft model."""


def check_updated(spec: Spec) -> None:
    """Check that an update reaches all weights of the engine, and that arguments for it are left to the mode.

    Raises:
        UserError: it does not, or they are not.
    """
    args, leave, settings = spec.engine.args, f"leave {spec.mode} out of modes", MODES[spec.mode].settings
    drafts = args.get("speculative_config")
    own_weights = isinstance(drafts, dict) and drafts.get("method") in WITHOUT_WEIGHTS
    refuse(
        (
            args.get("enable_sleep_mode") is not None,
            f"enable_sleep_mode: is set by rollout-bench itself in mode {spec.mode}",
            f"leave it out: {settings}.sleep says whether engines sleep; or {leave}",
        ),
        (
            args.get("weight_transfer_config") is not None,
            f"weight_transfer_config: is set by rollout-bench itself in mode {spec.mode}",
            f"leave it out, or {leave}",
        ),
        (
            drafts is not None and not own_weights,
            "speculative_config: an update replaces only the model's weights, so the draft model's weights would be "
            "outdated",
            f"use a method without weights ({', '.join(WITHOUT_WEIGHTS)}), or {leave}",
        ),
    )
