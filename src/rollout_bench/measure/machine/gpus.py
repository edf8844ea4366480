"""NVIDIA devices: inventory and readings from NVML or nvidia-smi (tested on H200s).

NVML counts how long a clock was lowered, and why, so readings before and after an iteration are enough. The current
reasons would not help: the device is idle at that time.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rollout_bench.contracts.record import DeviceUse
from rollout_bench.core.processes import printed_by
from rollout_bench.measure.machine.device import Device

VARIABLE = "CUDA_VISIBLE_DEVICES"


def nvidia_smi(*arguments: str) -> str:
    """Return the output of nvidia-smi; empty if it is not installed."""
    return printed_by("nvidia-smi", *arguments)


def gpus(nvml: Any = None, ask: Callable[..., str] = nvidia_smi) -> list[Device] | None:
    """Return all GPUs in NVML's order, the order of the PCI bus; None if neither NVML nor nvidia-smi lists any."""
    uuids = _by_nvml(nvml) or _by_tool(ask("--query-gpu=index,uuid", "--format=csv,noheader"))
    return [Device(uuid, str(index), (uuid,), index) for index, uuid in sorted(uuids.items())] or None


def smallest_gpu(ask: Callable[..., str] = nvidia_smi) -> tuple[str | None, int | None]:
    """Return name and memory in bytes of the GPU with the least memory; None if unknown."""
    lines = ask("--query-gpu=memory.total,name", "--format=csv,noheader,nounits").splitlines()
    said = ((mib.strip(), name.strip()) for mib, _, name in (line.partition(",") for line in lines))
    sizes = [(int(mib) << 20, name) for mib, name in said if mib.isdecimal()]
    return min(sizes)[::-1] if sizes else (None, None)


def pids_by_gpu(text: str) -> dict[str, set[int]]:
    """Return UUID -> pids that hold its memory, from `--query-compute-apps=gpu_uuid,pid --format=csv,noheader`."""
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
    except Exception:  # no package, driver or device: nvidia-smi may still list them
        return {}


def _by_tool(text: str) -> dict[int, str]:
    lines = [line.partition(",") for line in text.splitlines()]
    return {
        int(index): uuid.strip()
        for index, _, uuid in lines
        if index.strip().isdigit() and uuid.strip().startswith("GPU-")
    }


POWER, THERMAL = 0, 1
"""NVML_PERF_POLICY_POWER and NVML_PERF_POLICY_THERMAL."""


@dataclass(frozen=True)
class DeviceReading:
    """A device at one time; None for values that NVML does not report.

    `holders`: pid -> bytes of the device's memory.
    """

    moment: float
    device: str
    thermal_s: float | None
    power_s: float | None
    limit_w: float | None
    default_limit_w: float | None
    temperature_c: int | None
    holders: dict[int, int]
    energy_j: float | None = None


class Devices:
    """The devices of a launch; empty without NVML.

    Args:
        count: number of devices that the engine uses, the first in `CUDA_VISIBLE_DEVICES`.
        variables: the engine's environment.
        nvml: the pynvml module (package nvidia-ml-py, which vLLM installs on CUDA).
    """

    def __init__(self, count: int, variables: Mapping[str, str], nvml: Any = None) -> None:
        self._handles: list[Any] = []
        self._uuids: dict[int, str] = {}
        try:
            self._nvml = nvml if nvml is not None else importlib.import_module("pynvml")
            self._nvml.nvmlInit()
            names = [name.strip() for name in variables.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
            names = names or [str(index) for index in range(self._nvml.nvmlDeviceGetCount())]
            self._handles = [self._handle(name) for name in names[:count]]
        except Exception:  # no package, driver or device, or names unknown to NVML
            self._handles = []

    def read(self) -> list[DeviceReading]:
        """Return a reading of each device."""
        return [self._read(self._uuid(place), handle) for place, handle in enumerate(self._handles)]

    @property
    def why_no_energy(self) -> str:
        """Reason why the energy of a device is unknown, if it is."""
        if not self._handles:
            return "NVML is not there, or does not know the GPUs that the launch uses"
        return "NVML does not count the energy of its GPUs"

    def _uuid(self, place: int) -> str:
        """Return the UUID of a device, cached."""
        if place not in self._uuids:
            uuid = self._ask("nvmlDeviceGetUUID", self._handles[place])
            self._uuids[place] = uuid.decode() if isinstance(uuid, bytes) else str(uuid)
        return self._uuids[place]

    def _handle(self, name: str) -> Any:
        if name.isdigit():
            return self._nvml.nvmlDeviceGetHandleByIndex(int(name))
        return self._nvml.nvmlDeviceGetHandleByUUID(name)

    def _read(self, uuid: str, handle: Any) -> DeviceReading:
        limit, default = (
            self._ask("nvmlDeviceGetEnforcedPowerLimit", handle),
            self._ask("nvmlDeviceGetPowerManagementDefaultLimit", handle),
        )
        energy = self._ask("nvmlDeviceGetTotalEnergyConsumption", handle)
        processes = self._ask("nvmlDeviceGetComputeRunningProcesses", handle) or []
        return DeviceReading(
            moment=time.monotonic(),
            device=uuid,
            thermal_s=self._lowered_s(handle, THERMAL),
            power_s=self._lowered_s(handle, POWER),
            limit_w=None if limit is None else limit / 1000,
            default_limit_w=None if default is None else default / 1000,
            temperature_c=self._ask("nvmlDeviceGetTemperature", handle, 0),
            energy_j=None if energy is None else energy / 1000,
            holders={int(process.pid): int(process.usedGpuMemory or 0) for process in processes},
        )

    def _lowered_s(self, handle: Any, policy: int) -> float | None:
        status = self._ask("nvmlDeviceGetViolationStatus", handle, policy)
        return None if status is None else status.violationTime / 1e9

    def _ask(self, function: str, *arguments: Any) -> Any:
        try:
            return getattr(self._nvml, function)(*arguments)
        except Exception:  # NVMLError: this device, driver or container does not report it
            return None


def used(before: DeviceReading, after: DeviceReading, ours: set[int]) -> DeviceUse:
    """Return the use of a device between two readings; `ours` are the pids of the launch.

    In a container NVML may report the host's pids. Then no pid of the launch is among them although the engine holds
    memory, and other processes cannot be identified.
    """
    window_s = max(after.moment - before.moment, 1e-6)
    others = {pid: size for pid, size in (before.holders | after.holders).items() if pid not in ours}
    energy_j = None
    if before.energy_j is not None and after.energy_j is not None and after.energy_j > before.energy_j:
        energy_j = after.energy_j - before.energy_j  # a counter since the driver was loaded; every pass uses some
    known = bool(ours & (before.holders.keys() | after.holders.keys()))
    return DeviceUse(
        device=after.device,
        thermal_share=_share(before.thermal_s, after.thermal_s, window_s),
        power_share=_share(before.power_s, after.power_s, window_s),
        power_limit_w=after.limit_w,
        power_limit_default_w=after.default_limit_w,
        temperature_c=after.temperature_c,
        window_s=window_s if energy_j is not None else None,
        energy_j=energy_j,
        other_processes=len(others) if known else None,
        other_memory_bytes=sum(others.values()) if known else None,
    )


def _share(before: float | None, after: float | None, window_s: float) -> float | None:
    return None if before is None or after is None else round(max(0.0, after - before) / window_s, 4)
