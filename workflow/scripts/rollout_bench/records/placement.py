"""Where a launch ran, and what ran beside it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rollout_bench.plan.strict import Strict, absent


class Placement(Strict):
    """The node and devices that a launch held while its engine lived, and its neighbours."""

    node: str = Field(description="Name of the machine.")
    devices: list[str] = Field(
        description=(
            "Devices that the launch held, replica after replica, by names that hold on the whole machine: a GPU's "
            "UUID, npu-0, or on cpu the cores of a block: cores-0-3."
        )
    )
    visible: list[str] = Field(description="The same as the engine was told them: CUDA_VISIBLE_DEVICES, or cores.")
    isolation: Literal["exclusive", "per_device"] = Field(description="What was allowed to run beside it.")
    waited_s: float = Field(ge=0, description="Time until the devices were free, in seconds.")
    neighbours: list[str] = Field(
        description=(
            "Launches on other devices of the same node during some pass that counts, as "
            "<mode>/<experiment>/launch-<i>, or of another workflow."
        )
    )
    links: str | None = absent("How the devices are connected: NVLink, PCIe, HCCS. Null for one, or where unknown.")
    job: str | None = absent("Id of the scheduler's job: Slurm's, or the pod's name. Null outside of a scheduler.")
