"""What a model is trained with: presets, and what a user may write under `trained:`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rollout_bench.checkpoints.problems import LENGTHS, SHORT, VOCABULARY, ProblemSizes
from rollout_bench.checkpoints.shapes import ResolvedShape
from rollout_bench.contracts.fields import absent
from rollout_bench.core.errors import did_you_mean

TRAINING_VERSION = 1
"""Goes up when the same settings no longer give the same weights: problems, model, optimizer. Part of the spec."""

TRAINING_FILE = "training.json"
"""Beside a trained model's weights: how they were trained, and how many of its answers are right."""

_SMALLEST_ROW = SHORT.longest_prompt + SHORT.longest_answer

Problems = Literal["long"]

Steps = Annotated[int, Field(gt=0, le=1_000_000)]
Rows = Annotated[int, Field(gt=0, le=4096)]
RowTokens = Annotated[int, Field(ge=_SMALLEST_ROW, le=1 << 15)]
Rate = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]


def _qwen3(hidden: int, intermediate: int, layers: int, heads: int, key_value_heads: int) -> Mapping[str, Any]:
    return MappingProxyType(
        {
            "architecture": "qwen3",
            "hidden_size": hidden,
            "intermediate_size": intermediate,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": key_value_heads,
            "head_dim": 32,
            "vocab_size": VOCABULARY,
            "max_position_embeddings": 2048,
            "tie_word_embeddings": True,
            "rope_theta": 10_000.0,
            "num_experts": None,
            "num_experts_per_tok": None,
            "moe_intermediate_size": None,
        }
    )


@dataclass(frozen=True)
class TrainingPreset:
    """A shape, and a training that it learns its problems in: the fields of `ResolvedTraining`."""

    shape: Mapping[str, Any]
    steps: int
    sequences: int
    tokens: int
    learning_rate: float
    problems: Problems | None = None


TRAINED_PRESETS: Mapping[str, TrainingPreset] = MappingProxyType(
    {
        "bytes-small": TrainingPreset(_qwen3(128, 384, 4, 4, 2), 1500, 8, 128, 0.02),
        "bytes-long": TrainingPreset(_qwen3(128, 384, 4, 4, 2), 1000, 8, 128, 0.02, "long"),
        "bytes-tiny": TrainingPreset(_qwen3(64, 128, 2, 2, 1), 400, 8, 64, 0.04),
    }
)


class ResolvedTraining(BaseModel):
    """A complete training: what weights are made from. `model_dump()` is JSON-able, and stands in specs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int
    shape: ResolvedShape
    steps: Steps
    sequences: Rows
    tokens: RowTokens
    learning_rate: Rate
    problems: Problems | None = absent("How long its problems are. Null: short.")

    @property
    def lengths(self) -> ProblemSizes:
        """How long the problems are that it learns."""
        return LENGTHS[self.problems]


class TrainedModel(BaseModel):
    """A small model that the project trains itself, on problems whose answers can be checked."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    preset: str = Field("bytes-small", description="Named shape, with the training that the fields left out here take.")
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = Field(
        0, description="Seed of the first weights and of the problems."
    )
    steps: Steps | None = Field(None, description="Steps of the optimizer.")
    sequences: Rows | None = Field(None, description="Sequences in a step.")
    tokens: RowTokens | None = Field(
        None, description="Tokens in a sequence, which is one problem after another. The model knows no longer ones."
    )
    learning_rate: Rate | None = Field(None, description="The largest; it rises to it and falls to nothing.")

    @model_validator(mode="after")
    def _resolves(self) -> TrainedModel:
        self.resolve()
        return self

    def resolve(self) -> ResolvedTraining:
        """Fill in what was left out and return the complete training.

        Raises:
            ValueError: one sentence that names the field: an unknown preset, more tokens than positions, or fewer than
                a problem may have.
        """
        if self.preset not in TRAINED_PRESETS:
            raise ValueError(f"preset {self.preset!r} is unknown; {did_you_mean(self.preset, TRAINED_PRESETS)}")
        preset = TRAINED_PRESETS[self.preset]
        shape = ResolvedShape(**preset.shape, seed=self.seed)
        tokens = preset.tokens if self.tokens is None else self.tokens
        if tokens > shape.max_position_embeddings:
            raise ValueError(
                f"tokens {tokens} are more than the {shape.max_position_embeddings} positions of {self.preset}"
            )
        longest = LENGTHS[preset.problems].longest_prompt + LENGTHS[preset.problems].longest_answer
        if tokens < longest:
            raise ValueError(f"tokens {tokens} are fewer than the {longest} that a problem of {self.preset} may have")
        return ResolvedTraining(
            version=TRAINING_VERSION,
            shape=shape,
            steps=preset.steps if self.steps is None else self.steps,
            sequences=preset.sequences if self.sequences is None else self.sequences,
            tokens=tokens,
            learning_rate=preset.learning_rate if self.learning_rate is None else self.learning_rate,
            problems=preset.problems,
        )
