"""New weights of an engine: how deep it sleeps meanwhile, and the proof that they arrived."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from rollout_bench.contracts.fields import Strict, absent


def sleep_level_text(value: Any) -> Any:
    """Return a sleep level as text, as in specs, because `none` is a level."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


SleepLevel = Annotated[Literal["none", "1", "2"], BeforeValidator(sleep_level_text)]
"""none: the engine pauses and keeps all its memory; 1: weights move to the host's memory, and the KV cache is freed;
2: both are freed.
"""

Weights = Literal["first", "second"]
"""Weights of an engine: the initial ones, or the second checkpoint's."""


class WeightProof(Strict):
    """The engine's weights and their greedy tokens, read while nothing is timed."""

    weights: Weights = Field(description="Expected weights of the engine.")
    tensors: int = Field(ge=1, description="Tensors of the model, packed ones included.")
    trained: int = Field(
        ge=0,
        description=(
            "Tensors of the model that other weights must change: weights and biases of linear layers and "
            "experts, the embedding and the output head; in cycles also weights of norms."
        ),
    )
    changed_trained: int = Field(
        ge=0, description="Of these tensors, those that differ from the first proof; in cycles from the proof before."
    )
    not_finite: int = Field(ge=0, description="Tensors with an infinite value or NaN.")
    checksum: str = Field(pattern="^[0-9a-f]{16}$", description="Checksum over all tensors, by name.")
    tokens: str = Field(
        pattern="^[0-9a-f]{16}$",
        description=(
            "First 16 hex digits of SHA-256 over the greedy tokens of a few fixed prompts. They are generated "
            "one after the other, because the rounding in a batch depends on its composition."
        ),
    )
    stale_prefix_tokens: int | None = absent(
        "Prompt tokens that the first request after an update took from the prefix cache of the weights before. Null "
        "as loaded, and for an engine whose prefix cache holds no prompt that fits its context.",
        ge=0,
    )
    lost: int | None = absent(
        "In mode placement, the trainer's tensors that did not reach the engine, or not with the trainer's values. "
        "Null in other modes.",
        ge=0,
    )
    first_lost: str | None = absent("Name of the first of these tensors. Null if there is none.")
