"""Waits until an accelerator has released the memory of ended processes. Not tested on an NPU."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence

from rollout_bench.contracts.spec import Platform
from rollout_bench.measure.machine.device import Device
from rollout_bench.measure.machine.gpus import Gpus
from rollout_bench.measure.machine.npus import holders_by_npu, npu_smi

LIMIT_S = 50.0
"""Time limit in seconds, as in vllm-ascend's own tests."""


def pids_on(platform: Platform, devices: Sequence[Device] | None = None) -> set[int]:
    """Return pids that hold memory of `devices`, or of any device if None.

    The result is empty if NVML or npu-smi is missing or lists no processes. In a container it may list the host's pids.
    """
    if platform == "cuda":
        names = None if devices is None else [device.name for device in devices]
        return {pid for reading in Gpus(names).read() for pid in reading.holders}
    held = holders_by_npu(npu_smi()) if platform == "ascend" else {}
    numbers = held if devices is None else [device.number or 0 for device in devices]
    return {pid for number in numbers for pid in held.get(number, ())}


def wait_until_free(
    holders: Callable[[], Collection[int]], pause: Callable[[float], None] = time.sleep, limit_s: float = LIMIT_S
) -> bool:
    """Wait at most `limit_s` seconds until `holders` returns no processes; return False if some are left."""
    deadline = time.monotonic() + limit_s
    while holders():
        if time.monotonic() >= deadline:
            return False
        pause(1.0)
    return True
