"""Settings of placements: on which devices an engine generates and a trainer trains."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from rollout_bench.contracts.fields import Count, Seconds, Strict, ZeroOrOne, absent
from rollout_bench.contracts.mode_parts import ModeSpec
from rollout_bench.contracts.weights import SleepLevel

Where = Literal["colocated", "server"]
"""colocated: each rank hosts an engine and trains, alternately; server: some ranks generate, the others train."""

Through = Literal["engine", "server"]
"""engine: prompts go to the engine in the process of its rank; server: to vLLM's server, over HTTP."""

Strategy = Literal["ddp", "fsdp2"]
"""ddp: each training rank holds the whole model; fsdp2: its shard of weights, gradients and moments."""


class PlacementSettings(Strict):
    """Placement of engines and trainer."""

    repeats: Annotated[Count, Field(ge=3, le=1000)] = Field(5, description="Measured steps in each launch.")
    where: Where = Field(
        "colocated",
        description=(
            "colocated: each device generates and trains, alternately; server: some devices generate, the others"
            " train. sweep: {placement.where: [colocated, server]} compares both."
        ),
    )
    devices: Annotated[Count, Field(le=64)] = Field(
        2, description="Devices that share a step; on cpu the cores are divided into this number of blocks."
    )
    cores_per_device: Count | None = Field(
        None,
        description=(
            "On cpu, number of cores of a device, so that settings with unequal numbers of devices can be compared."
            " Null: all cores, divided by devices."
        ),
    )
    generators: Annotated[Count, Field(le=63)] | None = Field(
        None, description="With where: server, number of devices that generate. Null: half of them."
    )
    overlap: ZeroOrOne = Field(
        0,
        description=(
            "0: training devices wait for the step's sequences; 1: they train on the previous step's sequences, "
            "while the next are generated with weights that are one step old. Only with where: server."
        ),
    )
    through: Through = Field(
        "engine",
        description=(
            "With where: server, the way to the engines. engine: LLM.generate() in the rank's process; server: vLLM's "
            "server over HTTP, as in TRL, with a request for each sequence. Needs tensor_parallel_size 1."
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
    strategy: Strategy = Field(
        "ddp",
        description=(
            "Distribution of the trainer's stand-in. ddp: each training device holds the whole model. fsdp2: each "
            "holds a shard of weights, gradients and moments, by torch's fully_shard, as in verl; weights are gathered "
            "layer by layer to train, and tensor by tensor for the update. With train_s nothing is sharded."
        ),
    )
    waves: Annotated[Count, Field(le=64)] = Field(
        1,
        description=(
            "Generations of a step, one after the other, each of a part of the prompts; gradients of all add up. More "
            "than 1 is TRL with steps_per_generation below gradient_accumulation_steps."
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


class PlacementSpec(ModeSpec):
    """Placement of engines and trainer. `measuring.iterations` is the number of measured steps."""

    devices_key: ClassVar[str] = "placement.devices"

    where: Where = Field(description="colocated or server.")
    devices: int = Field(description="Devices that share a step.")
    cores_per_device: int | None = absent("On cpu, cores of a device. Null: all cores, divided by devices.")
    generators: int | None = absent("Number of devices that generate. Null if all do.")
    overlap: Literal[1] | None = absent("Steps by which generation is ahead of training. Null: none.")
    through: Literal["server"] | None = absent("server: engines are reached over HTTP. Null: they are not.")
    sleep: Literal["1", "2"] | None = absent("Sleep level of an engine while its device trains. Null: no sleep.")
    strategy: Literal["fsdp2"] | None = absent("fsdp2: the trainer is sharded over its devices. Null: it is not.")
    waves: int | None = absent("Generations of a step, one after the other. Null: one.")
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

    @property
    def generations(self) -> int:
        """Generations of a step, one after the other."""
        return self.waves or 1

    @property
    def devices_shared(self) -> int:
        """Devices of the launch."""
        return self.devices

    def other_work(self, other: ModeSpec, platform: str) -> str:
        """Return the setting that gives the steps of both other work; empty if there is none."""
        work = self.work(platform)
        differing = next((name for name in work if work[name] != getattr(other, name, None)), "")
        return differing and f"placement.{differing} is {work[differing]} and {getattr(other, differing, None)}"

    def work(self, platform: str) -> dict[str, float | None]:
        """Return the settings that must agree for steps to be the same work.

        More devices do the same work, except on cpu, where they have fewer cores unless their number is set.
        """
        divided = platform == "cpu" and self.cores_per_device is None
        parts = {"devices": self.devices} if divided else {}
        return {**parts, "cores_per_device": self.cores_per_device, "train_s": self.train_s}

    def beside_engines(self) -> dict[str, dict[str, Any]]:
        """Return the settings of the trainer."""
        return {"trainer": self.model_dump(mode="json")}

    def engines_of(self, size: int) -> list[range]:
        """Return the ranks of each engine: `size` successive ranks hold its shards."""
        return [self.generating[first : first + size] for first in range(0, len(self.generating), size)]

    def engines_on(self, devices: int) -> int:
        """Return the number of engines with this many devices each."""
        return len(self.engines_of(devices))


SECTION, OWN = PlacementSettings, PlacementSpec
"""Section of the config, and the part of the spec."""
