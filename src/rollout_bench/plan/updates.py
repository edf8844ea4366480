"""Refusals of modes that update an engine's weights."""

from rollout_bench.contracts.drafts import WITHOUT_WEIGHTS, drafts_of, trained_draft
from rollout_bench.contracts.modes import MODES
from rollout_bench.contracts.spec import Platform, Spec
from rollout_bench.contracts.weights import SleepLevel
from rollout_bench.core.errors import UserError

SLEEPS_ON: tuple[Platform, ...] = ("cuda", "ascend")
"""Platforms on which vLLM can put an engine to sleep."""


def check_updated(spec: Spec, sleep: SleepLevel, *, proves_drafts: bool = False) -> None:
    """Check that the engine can `sleep`, that an update reaches all its weights, and arguments are left to the mode.

    Args:
        spec: the settings.
        sleep: the engine's sleep level.
        proves_drafts: whether the mode notices that a trained draft has lost its weights.

    Raises:
        UserError: it does not, or they are not.
    """
    args, leave, settings = spec.engine.args, f"leave {spec.mode} out of modes", MODES[spec.mode].settings
    drafts = drafts_of(args)
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
    if drafts is None or drafts.method in WITHOUT_WEIGHTS or (proves_drafts and trained_draft(args)):
        return
    loses = "a sleep or an update may cost the draft model its weights, and"
    if proves_drafts:
        why = f"{loses} nobody sees it where its tokens are accepted by chance, or its weights are random"
        remedy = "name a trained draft in speculative_config.model"
    else:
        why = f"{loses} {spec.mode} does not look at it"
        remedy = "measure it in mode cycle"
    raise UserError(
        f"config: speculative_config: {why}",
        f"{remedy}, use a method without weights ({', '.join(WITHOUT_WEIGHTS)}), or {leave}",
    )
