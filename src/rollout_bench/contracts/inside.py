"""Steps and layers of an engine, in records of modes that look inside it."""

from typing import Literal

from pydantic import Field

from rollout_bench.contracts.fields import Strict

Role = Literal["qkv", "o", "gate_up", "down", "lm_head", "router", "experts", "other"]
"""Role of a linear layer in the model."""

Phase = Literal["prefill", "decode", "mixed"]
"""Computation of a step: prompts, one token of each sequence, or both."""


class LinearShape(Strict):
    """The linear layers of one role on one rank, as stored by the engine: fused, and split by tensor parallelism."""

    role: Role = Field(description="Role: qkv, o, gate_up, down, lm_head, router, experts, other.")
    in_features: int = Field(gt=0, description="K: input features.")
    out_features: int = Field(gt=0, description="N: output features.")
    layers: int = Field(gt=0, le=1_000_000, description="Number of such layers.")
