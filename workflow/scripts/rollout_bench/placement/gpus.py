"""The GPUs of a machine, as NVML or nvidia-smi list them (ran on machines with one and two H200s)."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from rollout_bench.engines.processes import printed_by
from rollout_bench.placement.device import Device

VARIABLE = "CUDA_VISIBLE_DEVICES"


def nvidia_smi(*arguments: str) -> str:
    """What nvidia-smi prints; empty where there is none."""
    return printed_by("nvidia-smi", *arguments)


def gpus(nvml: Any = None, ask: Callable[..., str] = nvidia_smi) -> list[Device] | None:
    """All GPUs in the order of their PCI bus, which is that of NVML; None where neither NVML nor nvidia-smi tells."""
    uuids = _by_nvml(nvml) or _by_tool(ask("--query-gpu=index,uuid", "--format=csv,noheader"))
    return [Device(uuid, str(index), (uuid,), index) for index, uuid in sorted(uuids.items())] or None


def pids_by_gpu(text: str) -> dict[str, set[int]]:
    """UUID -> pids that hold memory of it, from `--query-compute-apps=gpu_uuid,pid --format=csv,noheader`."""
    pids: dict[str, set[int]] = {}
    for line in text.splitlines():
        uuid, _, pid = line.partition(",")
        if pid.strip().isdigit():
            pids.setdefault(uuid.strip(), set()).add(int(pid))
    return pids


def _by_nvml(nvml: Any) -> dict[int, str]:
    try:
        nvml = nvml if nvml is not None else importlib.import_module("pynvml")
        nvml.nvmlInit()
        found = {}
        for index in range(nvml.nvmlDeviceGetCount()):
            uuid = nvml.nvmlDeviceGetUUID(nvml.nvmlDeviceGetHandleByIndex(index))
            found[index] = uuid.decode() if isinstance(uuid, bytes) else str(uuid)
        return found
    except Exception:  # no package, driver or device: nvidia-smi may still know
        return {}


def _by_tool(text: str) -> dict[int, str]:
    lines = [line.partition(",") for line in text.splitlines()]
    return {
        int(index): uuid.strip()
        for index, _, uuid in lines
        if index.strip().isdigit() and uuid.strip().startswith("GPU-")
    }
