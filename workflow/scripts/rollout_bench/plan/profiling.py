"""What profile and operators mode add to a config and to a spec."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from rollout_bench.plan.fields import Count, Pattern
from rollout_bench.plan.strict import Strict

Category = Literal[
    "linear",
    "attention",
    "quantize",
    "norm",
    "activation",
    "rotary",
    "kv_cache",
    "sampling",
    "communication",
    "memory_copy",
    "embedding",
    "host_gap",
    "other",
]
"""What an operator is for; quantize is also dequantize, host_gap work that keeps the device waiting."""

Role = Literal["qkv", "o", "gate_up", "down", "lm_head", "router", "experts", "other"]
"""What a linear layer does in the model."""


class OperatorRule(Strict):
    """What an operator is for that the built-in rules do not know, or take for something else."""

    match: Pattern = Field(description="Regular expression that is found in the operator's or kernel's name.")
    category: Category = Field(description="What its time counts as.")
    role: Role | None = Field(None, description="What a linear layer does in the model; told from shapes otherwise.")


class ProfileSettings(Strict):
    """What a profile launch traces."""

    steps: Annotated[Count, Field(le=1000)] = Field(
        8,
        description="Steps of the engine that are traced of each phase: more say the same in a larger trace.",
    )
    phase: Literal["prefill", "decode", "both"] = Field(
        "both", description="Which steps are traced: those that compute prompts, those that decode, or some of each."
    )
    through: Literal["engine", "server"] = Field(
        "engine",
        description=(
            "engine: through LLM, step by step; server: through vLLM's server, /start_profile and /stop_profile."
        ),
    )
    record_shapes: bool = Field(
        True, description="Trace the shapes of operators' inputs: roles of linear layers and the roofline need them."
    )
    with_stack: bool = Field(False, description="Trace Python's call stacks, too: much larger and slower.")
    profile_memory: bool = Field(False, description="Trace allocations, too.")
    max_trace_mib: Annotated[Count, Field(le=100_000)] = Field(
        256, description="MiB of compressed trace after which the window ends early."
    )
