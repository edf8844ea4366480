"""Waiting until an accelerator has released the memory of processes that were ended; on no NPU has it run."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from rollout_bench.contracts.spec import Platform
from rollout_bench.measure.machine.device import Device
from rollout_bench.measure.machine.gpus import nvidia_smi, pids_by_gpu
from rollout_bench.measure.machine.npus import holders_by_npu, npu_smi

LIMIT_S = 50.0
"""vllm-ascend's own tests wait as long."""


def pids_on(platform: Platform, devices: Sequence[Device] | None = None) -> set[int]:
    """Return pids that hold memory of one of `devices`, or of any.

    Empty if the vendor's tool is missing or names none.
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
    """Wait until none of `pids` holds memory of a device, at most `limit_s` seconds; return False if some still do.

    In a container the tool may show the host's pids or none; then nothing is found and nothing is waited for.
    """
    return platform == "cpu" or _ended(lambda: holders(platform) & set(pids), time.sleep, limit_s)


def wait_until_free(
    platform: Platform,
    devices: Sequence[Device],
    pause: Callable[[float], None],
    limit_s: float = LIMIT_S,
    holders: Callable[[Platform, Sequence[Device]], set[int]] = pids_on,
) -> bool:
    """Wait until nobody holds memory of `devices`, at most `limit_s` seconds; return False if somebody still does.

    For devices whose last launch was killed: nobody waited for them then.
    """
    return _ended(lambda: holders(platform, devices), pause, limit_s)


def _ended(holders: Callable[[], set[int]], pause: Callable[[float], None], limit_s: float) -> bool:
    deadline = time.monotonic() + limit_s
    while holders():
        if time.monotonic() >= deadline:
            return False
        pause(1.0)
    return True
