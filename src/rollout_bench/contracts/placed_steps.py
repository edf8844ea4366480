"""One training step with engine and trainer on the same or on different devices, and each device's activities.

A launch in mode placement has one process for each of its devices, called ranks. A rank generates, trains, or
alternates between both. A step is generate, gather, train, update; its work is the same for every placement.

With `tensor_parallel_size` t, t successive generating ranks hold the shards of one engine and generate all its
sequences together. Each sequence is counted once. If these ranks also train, each counts its share of the engine's
sequences, which it hands over. If they only generate, the first of them counts and hands over all.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from rollout_bench.contracts.cycles import SleepLevel
from rollout_bench.contracts.fields import Count, Seconds, Strict, absent, brackets, no_duplicates

Where = Literal["colocated", "server"]
"""colocated: each rank hosts an engine and trains, alternately; server: some ranks generate, the others train."""

Overlap = Literal[0, 1]


class PlacementSettings(Strict):
    """Placement of engines and trainer."""

    repeats: Annotated[Count, Field(ge=3, le=1000)] = Field(5, description="Measured steps in each launch.")
    where: Annotated[list[Where], BeforeValidator(brackets), AfterValidator(no_duplicates)] = Field(
        ["colocated", "server"],
        description=(
            "colocated: each device generates and trains, alternately; server: some devices generate, the others"
            " train. Both are compared as settings, at the same number of devices: where-colocated, "
            "where-server."
        ),
    )
    devices: Annotated[Count, Field(ge=2, le=64)] = Field(
        2, description="Devices that share a step; on cpu the cores are divided into this number of blocks."
    )
    generators: Annotated[Count, Field(le=63)] | None = Field(
        None, description="With where: server, number of devices that generate. Null: half of them."
    )
    overlap: Overlap = Field(
        0,
        description=(
            "0: training devices wait for the step's sequences; 1: they train on the previous step's sequences, "
            "while the next are generated with weights that are one step old. Only with where: server."
        ),
    )
    sleep: SleepLevel = Field(
        "none",
        description=(
            "Sleep level of a colocated engine from the end of generation until its new weights, as with TRL's "
            "vllm_enable_sleep_mode: none (it keeps its memory), 1 (weights move to the host's memory), 2 "
            "(weights are freed). A sleeping engine leaves its device to the trainer. Only with where: "
            "colocated, and on cuda."
        ),
    )
    train_s: Seconds | None = Field(
        None,
        description=(
            "Replace training by waiting for this number of seconds, divided by the devices that train: for a "
            "trainer with a known duration. Null: train on every generated sequence, in torch, a model of the "
            "same shape."
        ),
    )


class PlacementSpec(Strict):
    """Placement of engines and trainer. `measuring.iterations` is the number of measured steps."""

    where: Where = Field(description="colocated or server.")
    devices: int = Field(description="Devices that share a step.")
    generators: int | None = absent("Number of devices that generate. Null if all do.")
    overlap: Literal[1] | None = absent("Steps by which generation is ahead of training. Null: none.")
    sleep: Literal["1", "2"] | None = absent("Sleep level of an engine while its device trains. Null: no sleep.")
    train_s: float | None = absent(
        "Assumed seconds of training, summed over all training devices. Null: it is measured."
    )

    @property
    def generating(self) -> range:
        """Ranks that generate."""
        return range(self.devices if self.generators is None else self.generators)

    @property
    def training(self) -> range:
        """Ranks that train."""
        return range(self.devices) if self.generators is None else range(self.generators, self.devices)


Activity = Literal["generate", "sleep", "gather", "train", "reduce", "optimize", "wake", "update", "reset"]
"""Activity of a rank; the rest of a step is waiting.

gather: hand over generated sequences, and receive the sequences to train on. Before that, training ranks that share an
engine exchange the prompts of their shares. train: forward and backward. reduce: sum the gradients of all ranks.
update: transfer new weights to the engine; the sender is busy equally long. sleep: the engine frees its memory. wake:
it allocates it again, for weights before the update, and for the KV cache after the reset, once the trainer has freed
its memory.
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


class PlacedStep(Strict):
    """A whole step."""

    elapsed_s: float = Field(
        gt=0,
        description="From the release of all ranks until the last had trained and received new weights, in seconds.",
    )
    ranks: list[RankStep] = Field(min_length=2, description="Activities of each rank, by its number.")
    gathered_bytes: int = Field(ge=0, description="Bytes of generated sequences that were handed over.")
    update_bytes: int = Field(
        ge=0,
        description=(
            "Bytes of weights that each engine received; on several devices, each receives all and keeps a shard."
        ),
    )
