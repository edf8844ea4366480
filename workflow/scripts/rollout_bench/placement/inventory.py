"""The devices of this machine that this process may use."""

from __future__ import annotations

import os
from collections.abc import Mapping

from rollout_bench.placement import cores, gpus, npus
from rollout_bench.placement.device import Device
from rollout_bench.placement.visible import restricted
from rollout_bench.plan.spec import Isolation, Platform

VARIABLES = {"cuda": gpus.VARIABLE, "ascend": npus.VARIABLE}
"""Platform -> the variable that says which of its devices a process may use."""


def inventory(
    platform: Platform, blocks: int | None = None, variables: Mapping[str, str] = os.environ
) -> list[Device] | None:
    """The devices that `variables` leave, in their order; None where nobody can tell, and the engine has to see.

    Args:
        platform: kind of device; of an endpoint there are none here.
        blocks: into how many the cores are divided, on cpu; None: one.
        variables: the environment of the process that is to use them.

    Raises:
        DeviceError: a variable names what there is not, or there are fewer cores than blocks.
    """
    if platform == "cpu":
        return cores.blocks(blocks or 1)
    if platform == "unknown":
        return []
    found = gpus.gpus() if platform == "cuda" else npus.npus()
    if found is None:
        return None
    return restricted(VARIABLES[platform], variables.get(VARIABLES[platform]), found)


def usual_isolation(platform: Platform) -> Isolation:
    """What holds where the config leaves it open: launches on one processor, or at one server, slow each other."""
    return "per_device" if platform in VARIABLES else "exclusive"
