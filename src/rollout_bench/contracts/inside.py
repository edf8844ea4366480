"""Records of launches that look into the engine: profiles, probabilities.

There is no throughput in it, by design: a profiled engine is slower than it is.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rollout_bench.contracts.fields import Strict, absent
from rollout_bench.contracts.record import DeviceUse, HostUse, Launched
from rollout_bench.contracts.spec import Role as Role

Phase = Literal["prefill", "decode", "mixed"]
"""What a step of the engine computed: prompts, one token of each sequence, or both."""


class LinearShape(Strict):
    """The linear layers of one role on one rank, as the engine holds them: fused, and cut by tensor parallelism."""

    role: Role = Field(description="What they do: qkv, o, gate_up, down, lm_head, router, experts, other.")
    in_features: int = Field(gt=0, description="K: features that go in.")
    out_features: int = Field(gt=0, description="N: features that come out.")
    layers: int = Field(gt=0, le=1_000_000, description="How many there are.")


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

    @property
    def timed_s(self) -> dict[str, float]:
        """Start-up and every step."""
        return super().timed_s | {f"steps.{number}.elapsed_s": step.elapsed_s for number, step in enumerate(self.steps)}


class ScoredRow(Strict):
    """One sequence with the probabilities that an engine gave its tokens: a line of the side file."""

    batch: int | None = absent("Sequences that were scored at once. Null: the engine generated it.", gt=0)
    sequence: int = Field(ge=0, description="Its number, from 0.")
    logprobs: list[float] = Field(
        min_length=1, description="Of each token the log of its probability at temperature 1, natural."
    )
    first: list[int] = Field(min_length=1, description="In the place of each token the one that was likeliest.")
    prompt_token_ids: list[int] | None = absent("Its prompt. Null where the reference has it.")
    token_ids: list[int] | None = absent("Its tokens after the prompt. Null where the reference has them.")


class Drift(Launched):
    """What probabilities one launch gave the reference's tokens."""

    tokens_sha256: str = Field(
        pattern="^[0-9a-f]{64}$",
        description=(
            "SHA-256 of the prompts and tokens that were scored, as JSON without spaces: only launches that scored the "
            "same are compared."
        ),
    )
    scored_tokens: int = Field(gt=0, description="Tokens that were scored with each batch, those of prompts left out.")
    scores_file: str = Field(description="Name of the side file beside this one: a row for each sequence and batch.")
    scores: int = Field(gt=0, description="Rows in it.")
    side_files_sha256: dict[str, str] = Field(description="SHA-256 of the side file by its name.")
