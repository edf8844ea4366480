"""Checks of made drafts and of synthetic acceptance, which vLLM refuses only when it starts, or in its first step."""

from collections.abc import Mapping
from typing import Any

from rollout_bench.contracts.drafts import LENGTH, MADE, METHOD_KEY, RANDOM, RATES, SYNTHETIC, TOKENS_KEY, drafts_of
from rollout_bench.contracts.spec import Spec
from rollout_bench.core.errors import UnmeasurableError, UserError, value_text


def check_draft_args(where: str, config: Mapping[str, Any]) -> None:
    """Check a made draft and the synthetic acceptance in the argument `speculative_config` at `where`, as vLLM would.

    Raises:
        UserError: it is incomplete, contradicts itself, or no draft can have it.
    """
    _check_random(where, config)
    length, rates, tokens = (config.get(key) for key in (LENGTH, RATES, TOKENS_KEY))
    asked = [key for key, value in ((LENGTH, length), (RATES, rates)) if value is not None]
    if config.get(METHOD_KEY) != SYNTHETIC:
        for key in asked:
            raise UserError(
                f"config: {where}.{key}: is for synthetic acceptance", f"write {METHOD_KEY}: {SYNTHETIC} beside it"
            )
        return
    if not asked:
        raise UserError(f"config: {where}.{METHOD_KEY}: how much is accepted is missing", f"write {LENGTH}: 2")
    if len(asked) == 2:
        raise UserError(f"config: {where}.{RATES}: {LENGTH} says it too", "leave one of them out")
    if not isinstance(tokens, int) or tokens < 1:
        raise UserError(f"config: {where}.{asked[0]}: the tokens of a draft are not known", f"write {TOKENS_KEY}: 3")
    if rates is None and not (isinstance(length, int | float) and 1 <= length <= tokens + 1):
        raise UserError(
            f"config: {where}.{LENGTH}: {value_text(length)} is no mean number of tokens per step with {TOKENS_KEY} "
            f"{tokens}",
            f"give a number from 1 (none accepted) to {tokens + 1} (all accepted)",
        )
    if rates is not None and not _are_rates(rates, tokens):
        raise UserError(
            f"config: {where}.{RATES}: {value_text(rates)} are no chances that the first 1 to {tokens} tokens of a "
            "draft are accepted",
            f"give {tokens} numbers from 1 down to 0, none above the one before: "
            f"{[round(0.8 ** (place + 1), 2) for place in range(min(tokens, 8))]}",
        )


def _check_random(where: str, config: Mapping[str, Any]) -> None:
    if config.get("method") in MADE and config.get("model") is None:
        raise UserError(
            f"config: {where}.method: {config['method']}: its draft is missing",
            f"write model: {RANDOM}, or name a trained draft",
        )
    if config.get("model") != RANDOM:
        return
    if config.get("method") not in MADE:
        raise UserError(
            f"config: {where}.model: {RANDOM}: is for methods {' and '.join(MADE)}", f"write method: {MADE[0]}"
        )
    if config.get(TOKENS_KEY) is None:
        raise UserError(f"config: {where}.model: {RANDOM}: the tokens of a draft are missing", f"write {TOKENS_KEY}: 3")


def _are_rates(rates: Any, tokens: int) -> bool:
    if not isinstance(rates, list) or len(rates) != tokens or not all(isinstance(rate, int | float) for rate in rates):
        return False
    return all(1 >= one >= other >= 0 for one, other in zip([1, *rates], rates, strict=False))


def check_synthetic(spec: Spec) -> None:
    """Check that the platform of `spec` has synthetic acceptance, and its mode a use for it, if its drafts have it.

    Raises:
        UnmeasurableError: one of them has not.
    """
    drafts = drafts_of(spec.engine.args)
    if drafts and drafts.rates and spec.mode == "drift":
        raise UnmeasurableError(
            f"{METHOD_KEY}: {SYNTHETIC}: tokens accepted by chance are not the model's, which drift compares",
            f"leave {METHOD_KEY} and {LENGTH} out, or leave drift out of modes",
        )
    if drafts and drafts.rates and spec.platform == "cpu":  # vLLM 0.32, tried
        raise UnmeasurableError(
            f"{METHOD_KEY}: {SYNTHETIC}: vLLM's sampling on a CPU has no synthetic acceptance",
            f"measure it on a GPU, or leave {METHOD_KEY} and {LENGTH} out: the text then decides",
        )
