"""Waits until an accelerator has released the memory of ended processes. Not tested on an NPU."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from rollout_bench.contracts.spec import Platform
from rollout_bench.measure.machine.device import Device
from rollout_bench.measure.machine.gpus import nvidia_smi, pids_by_gpu
from rollout_bench.measure.machine.npus import holders_by_npu, npu_smi

LIMIT_S = 50.0
"""Time limit in seconds, as in vllm-ascend's own tests."""


def pids_on(platform: Platform, devices: Sequence[Device] | None = None) -> set[int]:
    """Return pids that hold memory of `devices`, or of any device if None.

    The result is empty if the vendor's tool is missing or lists no processes.
    """
    held: Mapping[Any, Iterable[int]] = {}
    if platform == "cuda":
        held = pids_by_gpu(nvidia_smi("--query-compute-apps=gpu_uuid,pid", "--format=csv,noheader"))
    elif platform == "ascend":
        held = holders_by_npu(npu_smi())
    named = held if devices is None else [device.name if platform == "cuda" else device.number for device in devices]
    return {pid for name in named for pid in held.get(name, ())}


def wait_until_released(
    platform: Platform,
    pids: Collection[int],
    limit_s: float = LIMIT_S,
    holders: Callable[[Platform], set[int]] = pids_on,
) -> bool:
    """Wait at most `limit_s` seconds until none of `pids` holds device memory; return False if some still do.

    In a container the tool may list the host's pids or none; then there is no wait.
    """
    return platform == "cpu" or _ended(lambda: holders(platform) & set(pids), time.sleep, limit_s)


def wait_until_free(
    platform: Platform,
    devices: Sequence[Device],
    pause: Callable[[float], None],
    limit_s: float = LIMIT_S,
    holders: Callable[[Platform, Sequence[Device]], set[int]] = pids_on,
) -> bool:
    """Wait at most `limit_s` seconds until no process holds memory of `devices`; return False if some still do.

    Used for devices whose last launch was killed and could not wait itself.
    """
    return _ended(lambda: holders(platform, devices), pause, limit_s)


def _ended(holders: Callable[[], set[int]], pause: Callable[[float], None], limit_s: float) -> bool:
    deadline = time.monotonic() + limit_s
    while holders():
        if time.monotonic() >= deadline:
            return False
        pause(1.0)
    return True
