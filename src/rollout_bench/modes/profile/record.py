"""The record of a profile launch.

It has no throughput by design, because the profiler slows the engine down.
"""

from typing import Literal

from pydantic import Field

from rollout_bench.contracts.fields import Strict
from rollout_bench.contracts.phases import Phase
from rollout_bench.contracts.record import DeviceUse, HostUse, Launched

WHOLE_STEP = "rollout_bench_step"
"""Mark of a step in the trace, from scheduling to returned outputs; vLLM's own covers only the model's part."""


class Step(Strict):
    """One step of the engine: scheduling, computing, sampling, output."""

    phase: Phase = Field(description="Phase of the step.")
    profiled: bool = Field(description="Whether the profiler was on.")
    elapsed_s: float = Field(gt=0, description="Duration, in seconds.")
    tokens: int = Field(ge=0, description="Computed tokens: tokens of prompts, and one per decoding sequence.")
    sequences: int = Field(ge=0, description="Sequences in the batch.")
    context_tokens: int | None = Field(
        None, ge=0, description="Tokens that attention read, over all sequences, as the mean over the step."
    )


class TraceFile(Strict):
    """One trace in the folder beside the record."""

    name: str = Field(description="Name in the folder: a file, or torch_npu's folder.")
    phase: Phase = Field(description="Phase of its steps.")
    rank: int = Field(ge=0, description="Rank of the worker.")
    source: Literal["torch", "torch_npu"] = Field(description="Profiler that wrote it.")
    size_bytes: int = Field(gt=0, description="Size on disk.")


class Profile(Launched):
    """The record of one profile launch."""

    steps: list[Step] = Field(
        min_length=1,
        description="Steps in order: for each phase some without the profiler, then traced ones, then more without.",
    )
    host: list[HostUse] = Field([], description="Other activity of the machine during each window of steps.")
    devices: list[DeviceUse] = Field([], description="Readings of each device for each window.")
    traces: list[TraceFile] = Field(min_length=1, description="Files of the profiler.")
    traces_folder: str = Field(description="Name of the traces' folder beside this file.")

    @property
    def folders(self) -> list[str]:
        """The traces."""
        return [f"{self.traces_folder}/{trace.name}" for trace in self.traces]

    @property
    def timed_s(self) -> dict[str, float]:
        """Times of start-up and of every step."""
        return super().timed_s | {f"steps.{number}.elapsed_s": step.elapsed_s for number, step in enumerate(self.steps)}


RECORD = Profile
