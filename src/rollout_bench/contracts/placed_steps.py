"""One step of training with engine and trainer on the same devices, or on devices of their own; what each device did.

A launch in mode placement has one process for each of its devices, called ranks. A rank generates, trains, or does both
in turn. A step is generate, gather, train, update; the same work whoever does it.

With `tensor_parallel_size` t, t successive ranks that generate hold the shards of one engine and generate all its
sequences together. Each sequence is counted once: where these ranks train too, each counts its own share of the
engine's, which it hands over; where they only generate, the first of them counts and hands over all.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from rollout_bench.contracts.cycles import SleepLevel, WeightProof
from rollout_bench.contracts.fields import Count, Seconds, Strict, absent, brackets, no_duplicates

Where = Literal["colocated", "server"]
"""colocated: each rank hosts an engine and trains, in turn; server: some ranks generate, the others train."""

Overlap = Literal[0, 1]


class PlacementSettings(Strict):
    """Where engines and trainer live."""

    repeats: Annotated[Count, Field(ge=3, le=1000)] = Field(5, description="Steps that count, in each launch.")
    where: Annotated[list[Where], BeforeValidator(brackets), AfterValidator(no_duplicates)] = Field(
        ["colocated", "server"],
        description=(
            "colocated: each device generates and trains, in turn; server: some devices generate, the others train. "
            "Both are settings that are compared, at the same number of devices: where-colocated, where-server."
        ),
    )
    devices: Annotated[Count, Field(ge=2, le=64)] = Field(
        2, description="Devices that share a step, whoever does what; on cpu the cores are divided into so many blocks."
    )
    generators: Annotated[Count, Field(le=63)] | None = Field(
        None, description="With where: server, how many of the devices generate. Null: half of them."
    )
    overlap: Overlap = Field(
        0,
        description=(
            "0: devices that train wait for the step's sequences; 1: they train on those of the step before, while "
            "the next are generated with weights that are one step old. Only with where: server."
        ),
    )
    sleep: SleepLevel = Field(
        "none",
        description=(
            "How deeply a colocated engine sleeps from when it has generated until it gets new weights, as with TRL's "
            "vllm_enable_sleep_mode: none (it keeps its memory), 1 (weights go to the host's memory), 2 (weights are "
            "given up). Asleep it leaves its device to the trainer. Only with where: colocated, and on cuda."
        ),
    )
    train_s: Seconds | None = Field(
        None,
        description=(
            "Do nothing for so many seconds instead, divided by the devices that train: for a trainer whose time is "
            "known. Null: really train on every generated sequence, in torch, a model of the same shape."
        ),
    )


class PlacementSpec(Strict):
    """Where engines and trainer live. How many steps count, `measuring.iterations` says."""

    where: Where = Field(description="colocated or server.")
    devices: int = Field(description="Devices that share a step.")
    generators: int | None = absent("How many of them generate. Null where all do.")
    overlap: Literal[1] | None = absent("Steps that generation is ahead of training. Null: none.")
    sleep: Literal["1", "2"] | None = absent("How deeply an engine sleeps while its device trains. Null: not at all.")
    train_s: float | None = absent("Seconds that training is taken to last, over all that train. Null: it is done.")

    @property
    def generating(self) -> range:
        """Ranks that generate."""
        return range(self.devices if self.generators is None else self.generators)

    @property
    def training(self) -> range:
        """Ranks that train."""
        return range(self.devices) if self.generators is None else range(self.generators, self.devices)


Activity = Literal["generate", "sleep", "gather", "train", "reduce", "optimize", "wake", "update", "reset"]
"""What a rank does; the rest of a step it waits.

gather: hand over generated sequences, and take those to be trained on; before that, ranks that train and share an
engine hand each other the prompts of their shares. train: forward and backward; reduce: gradients of all ranks become
one; update: new weights reach the engine, and who sends them is busy as long. sleep: the engine gives its memory back;
wake: it takes it again, its weights' before the update, its KV cache's after the reset, once what the trainer no longer
needs is given back.
"""


class Span(Strict):
    """A time in which a rank did one thing."""

    activity: Activity = Field(description="What it did.")
    began_s: float = Field(description="Seconds after the step began.")
    elapsed_s: float = Field(ge=0, description="How long, in seconds.")


class AsleepMemory(Strict):
    """Memory of a device before and after its engine fell asleep: whether vLLM gives it back."""

    awake_free_bytes: int = Field(ge=0, description="Free once the engine had generated.")
    asleep_free_bytes: int = Field(ge=0, description="Free once it slept: what training can have besides.")
    total_bytes: int = Field(ge=1, description="All of it.")


class RankStep(Strict):
    """What one rank did in a step."""

    rank: int = Field(ge=0, description="Its number, from 0.")
    spans: list[Span] = Field(description="In order; they do not overlap.")
    sequences: int = Field(
        ge=0,
        description=(
            "Sequences that it generated and handed over. Of an engine on several devices: its own share where it "
            "trains, too, else all on the first and none on the others."
        ),
    )
    output_tokens: int = Field(ge=0, description="Tokens of these that were generated.")
    trained_sequences: int = Field(ge=0, description="Sequences that it trained on.")
    trained_tokens: int = Field(ge=0, description="Their tokens, prompts included.")
    loss: float | None = absent("Mean loss over its micro-batches. Null where it did not train.")
    asleep: AsleepMemory | None = absent("Memory that its engine gave back while it slept. Null where it did not.")

    def busy_s(self, *activities: Activity) -> float:
        """Return the seconds in which it did any of `activities`; of anything where none is named."""
        return sum(span.elapsed_s for span in self.spans if not activities or span.activity in activities)


class PlacedStep(Strict):
    """A whole step."""

    elapsed_s: float = Field(
        gt=0,
        description="From the release of all ranks until the last had trained and had new weights, in seconds.",
    )
    ranks: list[RankStep] = Field(min_length=2, description="Of each rank, by its number.")
    gathered_bytes: int = Field(ge=0, description="Bytes of generated sequences that were handed over.")
    update_bytes: int = Field(
        ge=0,
        description="Bytes of weights that each engine took; of several devices each takes all, and keeps a shard.",
    )
    proofs: list[WeightProof] = Field(
        description=(
            "What the weights of each rank that generates were afterwards, by its number: all have the trainer's, or "
            "their shard of them."
        )
    )
