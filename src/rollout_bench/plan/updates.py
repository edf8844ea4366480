"""Refusals of modes that update an engine's weights."""

from rollout_bench.contracts.modes import MODES
from rollout_bench.contracts.spec import Platform, Spec
from rollout_bench.contracts.weights import SleepLevel
from rollout_bench.core.errors import UserError

SLEEPS_ON: tuple[Platform, ...] = ("cuda", "ascend")
"""Platforms on which vLLM can put an engine to sleep."""

WITHOUT_WEIGHTS = ("ngram", "suffix")
"""Methods of speculative decoding without a draft model."""


def check_updated(spec: Spec, sleep: SleepLevel) -> None:
    """Check that the engine can `sleep`, that an update reaches all its weights, and arguments are left to the mode.

    Raises:
        UserError: it does not, or they are not.
    """
    args, leave, settings = spec.engine.args, f"leave {spec.mode} out of modes", MODES[spec.mode].settings
    drafts = args.get("speculative_config")
    own_weights = isinstance(drafts, dict) and drafts.get("method") in WITHOUT_WEIGHTS
    if sleep != "none" and spec.platform not in SLEEPS_ON:
        raise UserError(
            f"config: {settings}.sleep: {sleep}: vLLM can't put an engine to sleep on {spec.platform}",
            f"set {settings}.sleep: none: the engine then keeps all its memory",
        )
    if args.get("enable_sleep_mode") is not None:
        raise UserError(
            f"config: enable_sleep_mode: is set by rollout-bench itself in mode {spec.mode}",
            f"leave it out: {settings}.sleep says whether engines sleep; or {leave}",
        )
    if args.get("weight_transfer_config") is not None:
        raise UserError(
            f"config: weight_transfer_config: is set by rollout-bench itself in mode {spec.mode}",
            f"leave it out, or {leave}",
        )
    if drafts is not None and not own_weights:
        raise UserError(
            "config: speculative_config: an update replaces only the model's weights, so the draft model's "
            "weights would be outdated",
            f"use a method without weights ({', '.join(WITHOUT_WEIGHTS)}), or {leave}",
        )
