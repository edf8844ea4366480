"""One training step with engine and trainer on the same or on different devices, and each device's activities.

A launch in mode placement has one process for each of its devices, called ranks. A rank generates, trains, or
alternates between both. A step is generate, gather, train, update; its work is the same for every placement.

With `tensor_parallel_size` t, t successive generating ranks hold the shards of one engine and generate all its
sequences together. Each sequence is counted once. If these ranks also train, each counts its share of the engine's
sequences, which it hands over. If they only generate, the first of them counts and hands over all.
"""

from typing import Literal

from pydantic import Field

from rollout_bench.contracts.fields import Strict, absent
from rollout_bench.contracts.mode_parts import ModePart
from rollout_bench.contracts.spec import Spec, tensor_parallel_size
from rollout_bench.modes.placement.settings import PlacementSpec

Activity = Literal["generate", "sleep", "gather", "train", "reduce", "optimize", "wake", "update", "reset"]
"""Activity of a rank; the rest of a step is waiting.

gather: hand over generated sequences, and receive the sequences to train on. Before that, training ranks that share an
engine exchange the prompts of their shares. train: forward and backward, with fsdp2 including its communication.
reduce: sum the gradients of all ranks, otherwise. update: transfer new weights to the engine; the sender is busy
equally long. sleep: the engine frees its memory. wake: it allocates it again, for weights before the update, and for
the KV cache after the reset, once the trainer has freed its memory.
"""


class Span(Strict):
    """A period of one activity of a rank."""

    activity: Activity = Field(description="The activity.")
    began_s: float = Field(description="Beginning, in seconds after the step began.")
    elapsed_s: float = Field(ge=0, description="Duration, in seconds.")


class AsleepMemory(Strict):
    """Memory of a device before and after its engine fell asleep, to show whether vLLM frees it."""

    awake_free_bytes: int = Field(ge=0, description="Free after generation.")
    asleep_free_bytes: int = Field(ge=0, description="Free while asleep: additional memory for training.")
    total_bytes: int = Field(ge=1, description="Total memory.")


class RankStep(Strict):
    """Activities of one rank in a step."""

    rank: int = Field(ge=0, description="Its number, from 0.")
    spans: list[Span] = Field(description="In order; they do not overlap.")
    sequences: int = Field(
        ge=0,
        description=(
            "Sequences that it generated and handed over. For an engine on several devices: its own share if it "
            "also trains, else all on the first device and none on the others."
        ),
    )
    output_tokens: int = Field(ge=0, description="Generated tokens of these sequences.")
    trained_sequences: int = Field(ge=0, description="Sequences that it trained on.")
    trained_tokens: int = Field(ge=0, description="Tokens of the sequences that it trained on, prompts included.")
    loss: float | None = absent("Mean loss over its micro-batches. Null if it did not train.")
    asleep: AsleepMemory | None = absent("Memory that its engine freed during sleep. Null if it did not sleep.")

    def busy_s(self, *activities: Activity) -> float:
        """Return the seconds spent on `activities`; on any activity if none is named."""
        return sum(span.elapsed_s for span in self.spans if not activities or span.activity in activities)


class PlacedStep(ModePart):
    """A whole step."""

    elapsed_s: float = Field(
        gt=0,
        description="From the release of all ranks until the last had trained and received new weights, in seconds.",
    )
    ranks: list[RankStep] = Field(min_length=1, description="Activities of each rank, by its number.")
    gathered_bytes: int = Field(ge=0, description="Bytes of generated sequences that were handed over.")
    update_bytes: int = Field(
        ge=0,
        description=(
            "Bytes of weights that each engine received; on several devices, each receives all and keeps a shard."
        ),
    )

    def whole_s(self, generating_s: float) -> float:
        """Return the seconds of the whole step, of which generation is a part."""
        return self.elapsed_s

    @property
    def judged_s(self) -> float:
        """Seconds of the whole step, on which verdicts are based."""
        return self.elapsed_s


def placed_engines(spec: Spec) -> list[range]:
    """Return the ranks of each engine of a placement: `tensor_parallel_size` successive ranks hold its shards."""
    return spec.of(PlacementSpec).engines_of(tensor_parallel_size(spec))


ITERATION = {
    "placed": (PlacedStep, "The whole step, and each device's activities in it. Null except in placements."),
}
"""Fields of an iteration that only this mode has."""
