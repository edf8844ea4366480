"""Costs of a training step besides generation: sleep, wake-up and weight sync.

An iteration in mode cycle generates and then goes through one `Transition`. Afterwards the engine can generate again.
The order of its parts is the same as in verl and TRL.
"""

from typing import Literal

from pydantic import Field

from rollout_bench.contracts.fields import Strict, absent
from rollout_bench.contracts.mode_parts import ModePart
from rollout_bench.contracts.weights import Weights

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


class TransitionPart(Strict):
    """One part of a transition."""

    name: PartName = Field(description="Name of the part.")
    began_s: float = Field(
        ge=0,
        description="Beginning, in seconds after the iteration's last token, or after an in-flight update began.",
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


class MemorySnapshot(Strict):
    """The engine's memory at one moment of a transition."""

    when: Literal["before", "asleep", "after"] = Field(
        description=(
            "before: at the end of the iteration, or once an in-flight update has paused it; asleep: paused or asleep; "
            "after: at the transition's end."
        )
    )
    device_free_bytes: int | None = absent("Least free memory of the worker's devices. Null on cpu.", ge=0)
    host_bytes: int = Field(
        ge=0,
        description=(
            "Memory of the engine's processes on the host, with shared pages counted once (proportional set size"
            " of anonymous and shared memory, without pages of files and without the trainer's tensors)."
        ),
    )


class UnderWay(Strict):
    """Requests that are under way at an in-flight update, as the engine counts them in the step before it."""

    requests: int = Field(ge=0, description="Those in the engine's batch, which have a KV cache.")
    waiting: int | None = absent("Those that wait for room in it. Null if unknown.", ge=0)
    tokens: int = Field(
        ge=0, description="Tokens of sequences that have begun, until then; each sample counts its prompt."
    )
    recomputed: int | None = absent("Requests whose KV cache was dropped, and computed again. Null if unknown.", ge=0)
    recomputed_tokens: int | None = absent(
        "Their tokens that were computed again, without those that another request's KV cache had. Null if none were, "
        "if further requests were preempted for want of room, or if the engine does not say: without a prefix cache.",
        ge=0,
    )


class Transition(ModePart):
    """From the last token of an iteration until the engine can generate again with new weights.

    An in-flight update is in the middle of an iteration, whose times are then without it.
    """

    elapsed_s: float = Field(gt=0, description="Sum of its parts, in seconds.")
    parts: list[TransitionPart] = Field(min_length=1, description="In their order.")
    update: WeightUpdate = Field(description="The update of the weights.")
    memory: list[MemorySnapshot] = Field(min_length=1, description="In their order.")
    under_way: UnderWay | None = absent("Requests under way. Null if the update was after the last token.")

    def part_s(self, *names: PartName) -> float:
        """Return the total duration of the parts with these names, in seconds."""
        return sum(part.elapsed_s for part in self.parts if part.name in names)

    def whole_s(self, generating_s: float) -> float:
        """Return the seconds of the whole step."""
        return generating_s + self.elapsed_s

    def slept(self) -> dict[str, float]:
        """Return its seconds of falling asleep and of waking up, and the free bytes of a device."""
        looks = [(look.when, look.device_free_bytes) for look in self.memory]
        free: dict[str, float] = {when: free for when, free in looks if free is not None}
        sleep_s = self.part_s("sleep")
        return {"sleep_s": sleep_s, "wake_s": self.part_s("wake_weights", "wake_kv_cache"), **free} if sleep_s else {}


ITERATION = {"transition": (Transition, "The transition to the next iteration. Null except in cycles.")}
"""Fields of an iteration that only this mode has."""
