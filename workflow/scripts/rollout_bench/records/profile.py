"""What a profile launch leaves: traces of a few steps, and how long steps take with and without the profiler.

There is no throughput in it, by design: a profiled engine is slower than it is.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rollout_bench.plan.profiling import Role as Role
from rollout_bench.plan.strict import Strict, absent
from rollout_bench.records.limits import MachineLimits
from rollout_bench.records.record import DeviceUse, HostUse, Launched

Phase = Literal["prefill", "decode", "mixed"]
"""What a step of the engine computed: prompts, one token of each sequence, or both."""


class LinearShape(Strict):
    """The linear layers of one role on one rank, as the engine holds them: fused, and cut by tensor parallelism."""

    role: Role = Field(description="What they do: qkv, o, gate_up, down, lm_head, router, experts, other.")
    in_features: int = Field(gt=0, description="K: features that go in.")
    out_features: int = Field(gt=0, description="N: features that come out.")
    layers: int = Field(gt=0, description="How many there are.")


class Step(Strict):
    """One step of the engine: scheduling, computing, sampling, handing back."""

    phase: Phase = Field(description="What it computed.")
    profiled: bool = Field(description="Whether the profiler was on.")
    elapsed_s: float = Field(gt=0, description="How long it took, in seconds.")
    tokens: int = Field(ge=0, description="Tokens computed: of prompts, and one of each sequence that decodes.")
    sequences: int = Field(ge=0, description="Sequences in the batch.")
    context_tokens: int | None = Field(
        None, ge=0, description="Tokens that attention looked back at, over all sequences, on average of the step."
    )


class TraceFile(Strict):
    """One trace in the folder beside the record."""

    name: str = Field(description="Name in the folder: a file, or the folder that torch_npu writes.")
    phase: Phase = Field(description="Which steps it holds.")
    rank: int = Field(ge=0, description="Worker that it is of.")
    source: Literal["torch", "torch_npu"] = Field(description="Profiler that wrote it.")
    size_bytes: int = Field(gt=0, description="Its size on disk.")


class Profile(Launched):
    """What one profile launch saw."""

    linears: list[LinearShape] = Field(description="The linear layers of one rank by role.")
    steps: list[Step] = Field(
        min_length=1,
        description="In order: of each phase some without the profiler, the traced ones, more without.",
    )
    host: list[HostUse] = Field([], description="What else the machine did during each window of steps.")
    devices: list[DeviceUse] = Field([], description="What each device said of itself about each window.")
    traces: list[TraceFile] = Field(min_length=1, description="What the profiler wrote.")
    traces_folder: str = Field(description="Name of the folder beside this file that holds them.")
    limits: MachineLimits | None = absent("What the machine can do at most. Null where it could not be measured.")
    truncated: str | None = absent("Why the window ended before its last step: the trace had reached its size limit.")

    @property
    def timed_s(self) -> dict[str, float]:
        """Start-up and every step."""
        return super().timed_s | {f"steps.{number}.elapsed_s": step.elapsed_s for number, step in enumerate(self.steps)}
