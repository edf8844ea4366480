"""Records of profile and drift launches.

Profiles have no throughput by design, because the profiler slows the engine down.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rollout_bench.contracts.fields import Strict, absent
from rollout_bench.contracts.record import DeviceUse, HostUse, Launched
from rollout_bench.contracts.spec import Role as Role

Phase = Literal["prefill", "decode", "mixed"]
"""Computation of a step: prompts, one token of each sequence, or both."""


class LinearShape(Strict):
    """The linear layers of one role on one rank, as stored by the engine: fused, and split by tensor parallelism."""

    role: Role = Field(description="Role: qkv, o, gate_up, down, lm_head, router, experts, other.")
    in_features: int = Field(gt=0, description="K: input features.")
    out_features: int = Field(gt=0, description="N: output features.")
    layers: int = Field(gt=0, le=1_000_000, description="Number of such layers.")


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

    linears: list[LinearShape] = Field(description="The linear layers of one rank by role.")
    steps: list[Step] = Field(
        min_length=1,
        description="Steps in order: for each phase some without the profiler, then traced ones, then more without.",
    )
    host: list[HostUse] = Field([], description="Other activity of the machine during each window of steps.")
    devices: list[DeviceUse] = Field([], description="Readings of each device for each window.")
    traces: list[TraceFile] = Field(min_length=1, description="Files of the profiler.")
    traces_folder: str = Field(description="Name of the traces' folder beside this file.")

    @property
    def timed_s(self) -> dict[str, float]:
        """Times of start-up and of every step."""
        return super().timed_s | {f"steps.{number}.elapsed_s": step.elapsed_s for number, step in enumerate(self.steps)}


class ScoredRow(Strict):
    """One sequence with the probabilities of its tokens from an engine: a line of the side file."""

    batch: int | None = absent("Sequences that were scored at once. Null: probabilities from generation.", gt=0)
    sequence: int = Field(ge=0, description="Its number, from 0.")
    logprobs: list[float] = Field(
        min_length=1, description="Natural logarithm of each token's probability at temperature 1."
    )
    first: list[int] = Field(min_length=1, description="The most likely token at each position.")
    prompt_token_ids: list[int] | None = absent("Its prompt. Null if the reference has it.")
    token_ids: list[int] | None = absent("Its tokens after the prompt. Null if the reference has them.")


class Drift(Launched):
    """The record of one drift launch: probabilities of the reference's tokens."""

    tokens_sha256: str = Field(
        pattern="^[0-9a-f]{64}$",
        description=(
            "SHA-256 of the scored prompts and tokens, as JSON without spaces: only launches with the same "
            "tokens are compared."
        ),
    )
    scored_tokens: int = Field(gt=0, description="Tokens that were scored with each batch size, without prompts.")
    scores_file: str = Field(description="Name of the side file beside this one: a row for each sequence and batch.")
    scores: int = Field(gt=0, description="Rows in the side file.")
    side_files_sha256: dict[str, str] = Field(description="SHA-256 of the side file by its name.")
