"""Costs of a training step besides generation: sleep, wake-up and weight sync; and the proof of the new weights.

An iteration in mode cycle generates and then goes through one `Transition`. Afterwards the engine can generate again.
The order of its parts is the same as in verl and TRL.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from rollout_bench.contracts.fields import Count, Strict, absent, brackets, no_duplicates


def _level(value: Any) -> Any:
    """Return a sleep level as text, as in specs, because `none` is a level."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


SleepLevel = Annotated[Literal["none", "1", "2"], BeforeValidator(_level)]
"""none: the engine pauses and keeps all its memory; 1: weights move to the host's memory, and the KV cache is freed;
2: both are freed.
"""

UpdateMethod = Literal["reload", "in_process"]
"""Method of the weight sync.

reload: vLLM reads a checkpoint in the engine's format from disk. in_process: the trainer's bf16 tensors are handed over
in the engine's process, bucket by bucket, and quantized there if the engine's format needs it.
"""


def _listed(value: Any) -> Any:
    return [_level(each) for each in value] if isinstance(value, list) else value


class CycleSettings(Strict):
    """Actions between two generations of a training step: the engine alternately receives other weights and its own."""

    repeats: Annotated[Count, Field(ge=3, le=1000)] = Field(
        10, description="Measured cycles in each launch: each generates and goes through one transition."
    )
    sleep: (
        Annotated[
            list[SleepLevel],
            BeforeValidator(_listed),
            BeforeValidator(brackets),
            AfterValidator(no_duplicates),
        ]
        | None
    ) = Field(
        None,
        description=(
            "Sleep level of the engine while the trainer uses the device: none (it pauses, and keeps its "
            "memory), 1 (weights move to the host), 2 (weights are freed). Several levels are compared as "
            "settings: sleep-1, sleep-2. Null: as in verl, 2 on cuda and 1 on ascend; none on cpu, where vLLM "
            "refuses sleep."
        ),
    )
    update: Annotated[list[UpdateMethod], BeforeValidator(brackets), AfterValidator(no_duplicates)] = Field(
        ["in_process"],
        description=(
            "Method of the weight sync: in_process (the trainer's bf16 tensors, in buckets), reload (vLLM reads "
            "a checkpoint in its own format). Several methods are compared as settings: update-reload."
        ),
    )


class CycleSpec(Strict):
    """Actions between two generations. `measuring.iterations` is their number."""

    sleep: SleepLevel = Field(description="Sleep level of the engine.")
    update: UpdateMethod = Field(description="Method of the weight sync.")


PartName = Literal[
    "drain",
    "pause",
    "sleep",
    "wake_weights",
    "update",
    "reset_prefix_cache",
    "wake_kv_cache",
    "resume",
]
"""Parts of a transition. pause and resume occur without sleep; sleep, wake_weights and wake_kv_cache with sleep."""

Weights = Literal["first", "second"]
"""Weights of an engine: the initial ones, or the second checkpoint's."""


class TransitionPart(Strict):
    """One part of a transition."""

    name: PartName = Field(description="Name of the part.")
    began_s: float = Field(
        ge=0,
        description=("Beginning, in seconds after the iteration's last token."),
    )
    elapsed_s: float = Field(ge=0, description="Duration, in seconds.")


class WeightUpdate(Strict):
    """New weights: time of each stage of the update. The three times add up to the time of the part."""

    weights: Weights = Field(description="The new weights.")
    transfer_s: float | None = absent(
        "Copying the trainer's tensors to the engine's device, in seconds. Null if vLLM reads them itself.",
        ge=0,
    )
    quantize_s: float | None = absent(
        "Quantizing bf16 weights for the engine's format, in seconds. Null if only the engine quantizes.", ge=0
    )
    load_s: float = Field(
        ge=0,
        description=("The rest, in seconds: vLLM copies weights into its tensors, repacks, and quantizes if needed."),
    )
    size_bytes: int | None = absent("Bytes of the trainer's tensors. Null if vLLM reads them itself.", ge=0)
    buckets: int | None = absent("Number of buckets. Null if vLLM reads the weights itself.", ge=1)


class MemoryLook(Strict):
    """The engine's memory at one moment of a transition."""

    when: Literal["before", "asleep", "after"] = Field(
        description="before: at the end of the iteration; asleep: paused or asleep; after: at the transition's end."
    )
    device_free_bytes: int | None = absent("Least free memory of the worker's devices. Null on cpu.", ge=0)
    host_bytes: int = Field(
        ge=0,
        description=(
            "Memory of the engine's processes on the host, with shared pages counted once (proportional set size"
            " of anonymous and shared memory, without pages of files and without the trainer's tensors)."
        ),
    )


class WeightProof(Strict):
    """The engine's weights and their greedy tokens, read while nothing is timed."""

    weights: Weights = Field(description="Expected weights of the engine.")
    tensors: int = Field(ge=1, description="Tensors of the model, packed ones included.")
    trained: int = Field(
        ge=0,
        description=(
            "Tensors of the model that other weights must change: weights and biases of linear layers and "
            "experts, the embedding and the output head; in cycles also weights of norms."
        ),
    )
    changed_trained: int = Field(
        ge=0, description="Of these tensors, those that differ from the first proof; in cycles from the proof before."
    )
    not_finite: int = Field(ge=0, description="Tensors with an infinite value or NaN.")
    checksum: str = Field(pattern="^[0-9a-f]{16}$", description="Checksum over all tensors, by name.")
    tokens: str = Field(
        pattern="^[0-9a-f]{16}$",
        description=(
            "First 16 hex digits of SHA-256 over the greedy tokens of a few fixed prompts. They are generated "
            "one after the other, because the rounding in a batch depends on its composition."
        ),
    )
    lost: int | None = absent(
        "In mode placement, the trainer's tensors that did not reach the engine, or not with the trainer's values. "
        "Null in other modes.",
        ge=0,
    )
    first_lost: str | None = absent("Name of the first of these tensors. Null if there is none.")


class Transition(Strict):
    """From the last token of an iteration until the engine can generate again with new weights."""

    elapsed_s: float = Field(gt=0, description="Sum of its parts, in seconds.")
    parts: list[TransitionPart] = Field(min_length=1, description="In their order.")
    update: WeightUpdate = Field(description="The update of the weights.")
    memory: list[MemoryLook] = Field(min_length=1, description="In their order.")

    def part_s(self, *names: PartName) -> float:
        """Return the total duration of the parts with these names, in seconds."""
        return sum(part.elapsed_s for part in self.parts if part.name in names)
