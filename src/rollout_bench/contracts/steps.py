"""Steps of an engine: the work that its scheduler put into each, and its time; and the record of many."""

from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

from pydantic import Field

from rollout_bench.contracts.fields import Strict
from rollout_bench.contracts.mode import STEPS
from rollout_bench.contracts.record import DeviceUse, HostUse, Launched
from rollout_bench.contracts.side_files import ROWS_REMEDY, read_rows
from rollout_bench.contracts.store import read_as


class StepWork(Strict):
    """The work of one step: some sequences compute a part of their prompt, the others one token each."""

    prefills: int = Field(ge=0, description="Sequences that compute a part of their prompt.")
    prefill_tokens: int = Field(ge=0, description="Prompt tokens that are computed; cached ones are not.")
    prefill_pairs: int = Field(
        ge=0,
        description=(
            "Pairs of a computed prompt token and a token that it attends to, itself included: n (c + (n + 1) / 2) for "
            "n tokens after c earlier ones."
        ),
    )
    decodes: int = Field(ge=0, description="Sequences that compute one token.")
    context_tokens: int = Field(ge=0, description="Tokens in the KV cache that these attend to, their own included.")
    kv_tokens: int = Field(
        ge=0,
        description=(
            "Room of the KV cache that sequences hold, in tokens. A block that samples share counts once, so this is "
            "less than all that they attend to."
        ),
    )

    @property
    def tokens(self) -> int:
        """Computed tokens."""
        return self.prefill_tokens + self.decodes


def work_of(computed: Iterable[tuple[Any, int]], kv_tokens: int) -> dict[str, int]:
    """Return the fields of `StepWork` for the vLLM requests of a step, already advanced, and their computed tokens."""
    counts = {**dict.fromkeys(StepWork.model_fields, 0), "kv_tokens": kv_tokens}
    for request, tokens in computed:
        before = request.num_computed_tokens - tokens
        # Earlier output tokens that are computed again after a preemption are prefill.
        if tokens == 1 and before >= request.num_prompt_tokens and not request.is_prefill_chunk:
            counts["decodes"] += 1
            counts["context_tokens"] += before + 1
        else:
            counts["prefills"] += 1
            counts["prefill_tokens"] += tokens
            counts["prefill_pairs"] += tokens * before + tokens * (tokens + 1) // 2
    return counts


class TimedStep(StepWork):
    """A measured step."""

    elapsed_s: float = Field(
        gt=0,
        description=(
            "From the end of the previous step, or from the beginning of scheduling if the engine was idle, until the "
            "scheduler had processed the output, in seconds: these times do not overlap."
        ),
    )


class StepRow(TimedStep):
    """One step: a line of the side file."""

    round: int = Field(ge=0, description="Its round.")
    part: int = Field(ge=0, description="Its pass in the round.")


class Steps(Launched):
    """The record of one steps launch. Its steps are in the side file."""

    rounds: int = Field(gt=0, description="Rounds of all passes.")
    steps: int = Field(gt=0, description="Rows in the side file.")
    steps_file: str = Field(description="Name of the side file beside this one: a row for each step.")
    kv_blocks: int = Field(gt=0, description="Blocks of the KV cache.")
    block_tokens: int = Field(gt=0, description="Tokens in a block of the KV cache.")
    captured_sizes: list[int] = Field(
        description="Batch sizes of captured graphs, to which steps without prompts are padded; empty without graphs."
    )
    max_num_seqs: int = Field(gt=0, description="Most sequences in a step.")
    max_num_batched_tokens: int = Field(gt=0, description="Most tokens in a step.")
    context_tokens: int = Field(gt=0, description="Length of the longest sequences, with prompt.")
    async_scheduling: bool = Field(description="Whether a step is scheduled before the previous one has ended.")
    arrival_s: float = Field(gt=0, description="Time for which a sequence arrives at the engine's core, in seconds.")
    host: list[HostUse] = Field([], description="Other activity of the machine during each pass.")
    devices: list[DeviceUse] = Field([], description="Readings of each device for each pass.")


def steps_path(record: Path) -> Path:
    """Return the side file of the record at `record`."""
    return record.with_suffix(STEPS)


def read_steps(path: Path) -> tuple[Steps, list[StepRow]]:
    """Return the record at `path` and its steps.

    Raises:
        UserError: one of the files is missing, damaged or not the other's.
    """
    record = read_as(path, Steps)
    return record, read_rows(steps_path(path), record, StepRow, ROWS_REMEDY)


def passes_of(rows: Iterable[StepRow]) -> list[list[StepRow]]:
    """Return the passes of a launch: the steps that followed each other."""
    return [list(steps) for _, steps in groupby(rows, key=lambda row: (row.round, row.part))]
