"""The record of a messages launch: the messages between the engine core and its workers, step by step."""

from typing import Literal

from pydantic import AliasChoices, Field

from rollout_bench.contracts.fields import Strict, absent
from rollout_bench.contracts.phases import Phase
from rollout_bench.contracts.record import DeviceUse, HostUse, Launched

Purpose = Literal["times", "contents"]
"""Purpose of a pass: times of steps, or contents of messages, whose reading takes additional time."""

Way = Literal["to_workers", "to_core"]
"""to_workers: what to compute, vLLM's SchedulerOutput; to_core: what came of it, vLLM's ModelRunnerOutput."""


FormatName = Literal["pickle_values", "msgpack_values", "msgpack_vllm", "pickle_changes"]
"""Another format of a message: values without the names of classes and fields, pickled or in msgpack; vLLM's msgpack
between front end and core; the changed fields alone, pickled."""


class FormatCost(Strict):
    """A message in another format."""

    size_bytes: int = Field(gt=0, description="Bytes, including buffers.")
    coding_s: float = Field(ge=0, description="Encoding and decoding, in seconds: each the best of three.")


class StepMessage(Strict):
    """One message of a step, pickled as vLLM's queue between core and workers does."""

    size_bytes: int = Field(gt=0, description="Bytes, including out-of-band buffers.")
    buffer_bytes: int = Field(0, ge=0, description="Of which buffers of tensors and arrays.")
    make_s: float = Field(ge=0, description="Pickling, in seconds: the best of three.")
    read_s: float = Field(ge=0, description="Unpickling, in seconds: the best of three.")
    distance: int | None = absent("Distance to the message of the previous step, in bytes. Null for the first.", ge=0)
    distance_by: Literal["levenshtein", "runs"] | None = absent(
        "levenshtein: the minimum number of insertions, deletions and substitutions of a byte; runs: bytes outside "
        "of runs of 8 or more that the previous message has too. runs is used for long messages and without rapidfuzz."
    )
    broadcast_s: float | None = absent(
        "A broadcast of as many bytes from one worker to all by torch.distributed (gloo on cpu, NCCL on cuda), in "
        "seconds, as the slowest worker saw it: median of ten. Null with one worker.",
        ge=0,
    )
    fields: dict[str, int] = Field(description="Bytes of each field, pickled by itself, by vLLM's name.")
    formats: dict[FormatName, FormatCost] = Field(
        {},
        description="Cost in other formats: pickle_values and msgpack_values have no names of classes and fields, "
        "msgpack_vllm is vLLM's own between front end and core, pickle_changes has changed fields only. Reading gives "
        "values, not vLLM's objects.",
    )

    @property
    def coding_s(self) -> float:
        """Pickling and unpickling, in seconds."""
        return self.make_s + self.read_s


class MessageStep(Strict):
    """One step of the engine core."""

    # records of 2026-11-29, as of studies/results/h200-messages.tar.xz, are sealed with the earlier name
    purpose: Purpose = Field(validation_alias=AliasChoices("purpose", "look"), description="Purpose of its pass.")
    batch: int = Field(gt=0, description="Sequences of the pass.")
    index: int = Field(ge=0, description="Its number in the pass, from 0.")
    phase: Phase = Field(description="Phase of the step.")
    tokens: int = Field(ge=0, description="Scheduled tokens.")
    sequences: int = Field(ge=0, description="Scheduled sequences.")
    new_requests: int = Field(ge=0, description="Scheduled sequences that are new to the workers.")
    new_prompt_tokens: int = Field(ge=0, description="Prompt tokens of the new sequences.")
    elapsed_s: float = Field(
        gt=0,
        description=(
            "From the beginning of scheduling, or from the end of the previous step if that is later, until the "
            "scheduler had processed the output, in seconds: these times do not overlap."
        ),
    )
    to_workers: StepMessage | None = absent("The message to the workers. Null in passes for times.")
    to_core: StepMessage | None = absent("The answer of the worker that answers. Null in passes for times.")


class Messages(Launched):
    """The record of one messages launch."""

    async_scheduling: bool = Field(description="Whether a step is scheduled before the previous one has ended.")
    pickled_bytes: dict[str, int] = Field(
        description="Pickled size of single vLLM objects: SamplingParams, and empty messages."
    )
    steps: list[MessageStep] = Field(min_length=1, description="Steps of every pass, in order.")
    host: list[HostUse] = Field([], description="Other activity of the machine during each pass for times.")
    devices: list[DeviceUse] = Field([], description="Readings of each device for each pass for times.")

    @property
    def timed_s(self) -> dict[str, float]:
        """Times of start-up and of every step."""
        return super().timed_s | {f"steps.{number}.elapsed_s": step.elapsed_s for number, step in enumerate(self.steps)}


RECORD = Messages
