"""What profile and operators mode add to a config and to a spec."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from rollout_bench.plan.fields import Count, Index, Number, Pattern, brackets
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

TOKENS_OF_A_CALL = tuple(1 << power for power in range(11))
"""1, 2, 4, ... 1024: what linear layers are called with."""

LARGEST_DEFAULT = 1024
"""vLLM's max_num_seqs where nothing is said, at most: it depends on the device."""


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


def _rising(values: list[int]) -> list[int]:
    return sorted(set(values))  # their order is no setting


class OperatorsSettings(Strict):
    """How linear layers are timed alone."""

    tokens: Annotated[
        list[Annotated[Count, Field(le=65536)]],
        BeforeValidator(brackets),
        AfterValidator(_rising),
        Field(max_length=64),
    ] = Field(
        list(TOKENS_OF_A_CALL),
        description=("Tokens in a call (M). The sequences that decode at once under the workload are added."),
    )
    repeats: Annotated[Count, Field(ge=3, le=10_000)] = Field(
        20, description="Rounds that count, at least; each times every point once, in an order of its own."
    )
    warmup_rounds: Annotated[Index, Field(le=1000)] = Field(2, description="Rounds that are recorded but not counted.")
    min_s: Annotated[Number, Field(gt=0, le=3600)] = Field(
        0.02,
        description="Seconds that each point is timed for over all rounds, at least: short calls are made more often.",
    )

    def with_batch(self, batch: int) -> OperatorsSettings:
        """The same with `batch` among the tokens, as a spec has it."""
        return self.model_copy(update={"tokens": sorted({*self.tokens, batch})})


def decode_batch(prompts: int, samples_per_prompt: int, args: dict[str, Any]) -> int:
    """Sequences that decode at once: all of a pass, as far as `max_num_seqs` in the engine's `args` allows."""
    limit = args.get("max_num_seqs")
    return min(prompts * samples_per_prompt, limit if isinstance(limit, int) else LARGEST_DEFAULT)
