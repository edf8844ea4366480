"""Speculative decoding as vLLM's argument `speculative_config` sets it, and its synthetic acceptance."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ARGUMENT = "speculative_config"

LENGTH, RATES = "synthetic_acceptance_length", "synthetic_acceptance_rates"
"""Keys that say how many tokens of a draft vLLM accepts by chance, whatever they are; one of them."""

METHOD_KEY, SYNTHETIC = "rejection_sample_method", "synthetic"

TOKENS_KEY = "num_speculative_tokens"

BY_BATCH_KEY = "num_speculative_tokens_per_batch_size"
"""Key of ranges of batch sizes, each with the tokens of its drafts."""

RANDOM = "random"
"""Value of its key `model` for a draft of random weights in the shape that fits the model; vLLM does not know it."""

WITHOUT_WEIGHTS = ("ngram", "suffix")
"""Methods without a draft model."""

MADE = ("eagle3", "draft_model")
"""Methods for which such a draft is made."""

DEVIATIONS = 5
"""Standard deviations between the accepted length that was asked for and a measured one that proves another: by chance
one launch in 1.7 million has it.
"""

LEAST = 0.01
"""Tokens per step by which an accepted length may always differ."""


@dataclass(frozen=True)
class Drafts:
    """The drafts of an engine.

    Attributes:
        method: vLLM's name of how they are made.
        tokens: most tokens of a draft; None if the engine decides.
        rates: chance that at least 1, 2, ... tokens of a draft are accepted, whatever they are; empty if the text
            decides.
        by_batch: whether the tokens of a draft depend on the size of the batch.
    """

    method: str
    tokens: int | None
    rates: tuple[float, ...] = ()
    by_batch: bool = False

    @property
    def asked_length(self) -> float | None:
        """Mean tokens per step that synthetic acceptance is to give, 1 if none is accepted; None without it."""
        return 1 + sum(self.rates) if self.rates else None

    def tolerance(self, drafts: int) -> float:
        """Return how far the mean accepted length of `drafts` drafts may be from `asked_length` by chance.

        The accepted tokens K of a draft have P(K >= i) = r_i, so E(K) is the sum of r_i, and E(K^2) that of
        (2 i - 1) r_i. The mean of independent drafts is normal (central limit). Below `LEAST` no answer would change.
        """
        square = sum((2 * place + 1) * rate for place, rate in enumerate(self.rates))
        variance = max(0.0, square - sum(self.rates) ** 2)
        return max(DEVIATIONS * math.sqrt(variance / drafts), LEAST)


def trained_draft(args: Mapping[str, Any]) -> bool:
    """Return whether an engine with these arguments has a draft with weights, whose tokens the text accepts."""
    drafts = drafts_of(args)
    return (
        drafts is not None
        and drafts.method not in WITHOUT_WEIGHTS
        and not drafts.rates
        and args[ARGUMENT].get("model") != RANDOM
    )


def drafts_of(args: Mapping[str, Any]) -> Drafts | None:
    """Return the drafts that an engine with these arguments makes; None if it makes none."""
    config = args.get(ARGUMENT)
    if not isinstance(config, Mapping) or not config:
        return None
    tokens = config.get(TOKENS_KEY)
    method = config.get("method") or ("draft_model" if config.get("model") else "unknown")
    return Drafts(str(method), tokens, _rates(config, tokens), by_batch=bool(config.get(BY_BATCH_KEY)))


def _rates(config: Mapping[str, Any], tokens: int | None) -> tuple[float, ...]:
    """Return the synthetic rates, of a length as `SpeculativeConfig._acceptance_length_to_rates` of vLLM 0.32 does."""
    if config.get(METHOD_KEY) != SYNTHETIC:
        return ()
    if (rates := config.get(RATES)) is not None:
        return tuple(rates)
    accepted = float(config.get(LENGTH) or 1) - 1
    return tuple(min(1.0, max(0.0, accepted - place)) for place in range(tokens or 0))
