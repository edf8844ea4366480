"""Waiting until an accelerator has released the memory of processes that were ended. Has not run on hardware yet."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence

from rollout_bench.contracts.spec import Platform
from rollout_bench.core.processes import printed_by
from rollout_bench.measure.machine.device import Device
from rollout_bench.measure.machine.gpus import nvidia_smi, pids_by_gpu
from rollout_bench.measure.machine.npus import holders_by_npu, npu_smi

LIMIT_S = 50.0
"""vllm-ascend's own tests wait as long."""


def pids_on_device(platform: Platform) -> set[int]:
    """Pids that hold memory of a device, as its tool names them; empty if the tool is missing or names none."""
    if platform == "cuda":
        text = printed_by("nvidia-smi", "--query-compute-apps=pid", "--format=csv,noheader")
        return {int(line) for line in text.split() if line.isdigit()}
    if platform == "ascend":
        return {pid for holders in holders_by_npu(npu_smi()).values() for pid in holders}
    return set()


def wait_until_released(
    platform: Platform,
    pids: Collection[int],
    limit_s: float = LIMIT_S,
    holders: Callable[[Platform], set[int]] = pids_on_device,
) -> bool:
    """Waits until none of `pids` holds memory of a device, at most `limit_s` seconds; False if some still do.

    In a container the tool may show the host's pids or none; then nothing is found and nothing is waited for.
    """
    deadline = time.monotonic() + limit_s
    while platform != "cpu" and holders(platform) & set(pids):
        if time.monotonic() >= deadline:
            return False
        time.sleep(1.0)
    return True


def pids_on(platform: Platform, devices: Sequence[Device]) -> set[int]:
    """Pids that hold memory of one of `devices`; empty if the vendor's tool is missing or names none."""
    if platform == "cuda":
        pids = pids_by_gpu(nvidia_smi("--query-compute-apps=gpu_uuid,pid", "--format=csv,noheader"))
        return {pid for device in devices for pid in pids.get(device.name, ())}
    if platform == "ascend":
        held = holders_by_npu(npu_smi())
        return {pid for device in devices if device.number is not None for pid in held.get(device.number, ())}
    return set()


def wait_until_free(
    platform: Platform,
    devices: Sequence[Device],
    pause: Callable[[float], None],
    limit_s: float = LIMIT_S,
    holders: Callable[[Platform, Sequence[Device]], set[int]] = pids_on,
) -> bool:
    """Waits until nobody holds memory of `devices`, at most `limit_s` seconds; False if somebody still does.

    For devices whose last launch was killed: nobody waited for them then.
    """
    deadline = time.monotonic() + limit_s
    while holders(platform, devices):
        if time.monotonic() >= deadline:
            return False
        pause(1.0)
    return True
