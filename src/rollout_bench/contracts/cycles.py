"""What one step of training costs besides generating: sleep, wake-up, new weights; and what proves that they came.

A pass in mode cycle generates, then goes through one `Transition`, after which the engine could generate again. The
order of its parts is that of verl and TRL.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from rollout_bench.contracts.fields import Count, Strict, absent, brackets, no_duplicates


def _level(value: Any) -> Any:
    """Return the level of a sleep as specs have it: text, since `none` is one."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


SleepLevel = Annotated[Literal["none", "1", "2"], BeforeValidator(_level)]
"""none: the engine pauses and keeps all its memory; 1: weights go to the host's memory, the KV cache is given back; 2:
both are given back."""

UpdateMethod = Literal["reload", "in_process"]
"""How new weights reach the engine.

reload: vLLM reads a checkpoint of the engine's own format from disk. in_process: tensors of the trainer, bf16, are
handed over in the engine's process, bucket by bucket, and quantized there where the engine's format needs it.
"""


def _listed(value: Any) -> Any:
    return [_level(each) for each in value] if isinstance(value, list) else value


class CycleSettings(Strict):
    """What happens between two generations of a training step: the engine gets other weights and its own, in turn."""

    repeats: Annotated[Count, Field(ge=3, le=1000)] = Field(
        10, description="Cycles that count, in each launch: each generates, and goes through one transition."
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
            "How deeply the engine sleeps while the trainer has the device: none (it pauses, and keeps its memory), 1 "
            "(weights go to the host), 2 (weights are given up). Several are settings that are compared: "
            "sleep-1, sleep-2. Null: what verl does, 2 on cuda, 1 on ascend; none on cpu, where vLLM refuses sleep."
        ),
    )
    update: Annotated[list[UpdateMethod], BeforeValidator(brackets), AfterValidator(no_duplicates)] = Field(
        ["in_process"],
        description=(
            "How new weights reach the engine: in_process (the trainer's bf16 tensors, in buckets), reload (vLLM reads "
            "a checkpoint of its own format). Several are settings that are compared: update-reload."
        ),
    )


class CycleSpec(Strict):
    """What happens between two generations. How often, `measuring.iterations` says."""

    sleep: SleepLevel = Field(description="How deeply the engine sleeps.")
    update: UpdateMethod = Field(description="How new weights reach the engine.")


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
"""Parts of a transition. pause and resume without sleep; sleep, wake_weights and wake_kv_cache with it."""

Weights = Literal["first", "second"]
"""Which weights an engine has: those that it was started with, or those of the second checkpoint."""


class TransitionPart(Strict):
    """One part of a transition."""

    name: PartName = Field(description="What was done.")
    began_s: float = Field(
        ge=0,
        description="When, in seconds after the pass's last token was back; after drain proving comes in between.",
    )
    elapsed_s: float = Field(ge=0, description="How long it took, in seconds.")


class WeightUpdate(Strict):
    """New weights: what of an update's time went where. The three times sum up to that of its part."""

    weights: Weights = Field(description="Which weights they are.")
    transfer_s: float | None = absent(
        "Copying the trainer's tensors to the engine's device, in seconds. Null where vLLM reads them itself.",
        ge=0,
    )
    quantize_s: float | None = absent(
        "Quantizing bf16 weights for the engine's format, in seconds. Null where nobody but the engine does.", ge=0
    )
    load_s: float = Field(
        ge=0,
        description=(
            "The rest, in seconds: vLLM puts weights into their places, repacks, and quantizes where it does."
        ),
    )
    size_bytes: int | None = absent("Bytes of the trainer's tensors. Null where vLLM reads them itself.", ge=0)
    buckets: int | None = absent("In how many buckets. Null where vLLM reads them itself.", ge=1)


class MemoryLook(Strict):
    """What the engine held at one moment of a transition."""

    when: Literal["before", "asleep", "after"] = Field(
        description="before: when the pass was over; asleep: paused or asleep; after: at the end."
    )
    device_free_bytes: int | None = absent("Free memory of the worker's device that has least. Null on cpu.", ge=0)
    host_bytes: int = Field(
        ge=0,
        description=(
            "Memory of the engine's processes on the host, shared pages counted once (proportional set size of "
            "anonymous and shared memory: pages of files are the system's), without the trainer's tensors."
        ),
    )


class Agreement(Strict):
    """Whether an engine's weights are its trainer's, tensor by tensor: checksums over type, shape and all values."""

    tensors: int = Field(ge=1, description="Tensors that the trainer has.")
    not_received: int = Field(
        ge=0, description="Of these, those that the engine was not handed, or not as the trainer has them."
    )
    found: int = Field(
        ge=0,
        description=(
            "Of these, those that can be read in the engine once they are loaded: under their own name, or as rows of "
            "a tensor that vLLM fuses several to; of what ranks share out, the rank's part. What is packed for some "
            "kernels, or shared out unevenly, can't."
        ),
    )
    not_loaded: int = Field(ge=0, description="Of those that were found, those that are not as the trainer has them.")
    first: str | None = absent("Name of the first that was not received or not loaded. Null where there is none.")


class WeightProof(Strict):
    """What the engine's weights are, and what it generates with them: read while nothing is timed."""

    weights: Weights = Field(description="Which weights the engine should have.")
    tensors: int = Field(ge=1, description="Tensors of the model, packed ones included.")
    trained: int = Field(
        ge=0,
        description=(
            "Of these, those that other weights have to change: weights and biases of linear layers and experts, the "
            "embedding and the output head; in cycles weights of norms, too."
        ),
    )
    changed: int = Field(ge=0, description="Tensors that are not what they were at the proof before.")
    changed_trained: int = Field(ge=0, description="Of these, those that other weights have to change.")
    not_finite: int = Field(ge=0, description="Tensors with a value that is infinite or no number.")
    checksum: str = Field(pattern="^[0-9a-f]{16}$", description="Over all tensors, by name.")
    tokens: str = Field(
        pattern="^[0-9a-f]{16}$",
        description=(
            "First 16 hex digits of SHA-256 over the greedy tokens of a few fixed prompts, generated one after the "
            "other: in one batch their rounding would depend on which of them meet."
        ),
    )
    trainer: Agreement | None = absent(
        "In mode placement, whether they are the trainer's. Null in other modes, and in records made earlier."
    )


class Transition(Strict):
    """From the last token of a pass until the engine could generate again, with new weights."""

    elapsed_s: float = Field(gt=0, description="The sum of its parts, in seconds: proving is none of them.")
    parts: list[TransitionPart] = Field(min_length=1, description="In their order.")
    update: WeightUpdate = Field(description="What became of the weights.")
    memory: list[MemoryLook] = Field(min_length=1, description="In their order.")
    loaded: WeightProof | None = absent(
        "What the weights were that the pass generated with, read once the engine was drained. Null in records of "
        "earlier versions but for the first pass."
    )
    proof: WeightProof | None = absent(
        "What they were afterwards. Null but in the last pass: of all others it is the next pass's `loaded`. In "
        "records of earlier versions all have it, read before the next pass began."
    )

    def part_s(self, *names: PartName) -> float:
        """Return what the parts of these names took together, in seconds."""
        return sum(part.elapsed_s for part in self.parts if part.name in names)
