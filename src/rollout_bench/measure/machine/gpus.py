"""NVIDIA devices: inventory and readings from NVML (tested on H200s); without its package, nvidia-smi lists them.

NVML counts how long a clock was lowered, and why, so readings before and after an iteration are enough. The current
reasons would not help: the device is idle at that time.
"""

import contextlib
import importlib
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

from rollout_bench.contracts.record import DeviceUse
from rollout_bench.core.processes import printed_by
from rollout_bench.measure.machine.device import Device, DeviceReading

POWER, THERMAL = 0, 1
"""NVML_PERF_POLICY_POWER and NVML_PERF_POLICY_THERMAL."""


class Gpus:
    """GPUs that NVML reads; none if the package nvidia-ml-py, the driver or a device is missing.

    Args:
        names: indices or UUIDs; None: all, in NVML's order, which is the order of the PCI bus.
        count: number of `names` that are used.
        nvml: the pynvml module.
    """

    def __init__(self, names: Sequence[str] | None = None, count: int | None = None, nvml: Any = None) -> None:
        self.handles: dict[str, Any] = {}
        """UUID of each GPU, in order -> NVML's handle."""
        with contextlib.suppress(Exception):  # no package, driver or device, or names unknown to NVML
            self._nvml = nvml or importlib.import_module("pynvml")
            self._nvml.nvmlInit()
            names = [str(index) for index in range(self._nvml.nvmlDeviceGetCount())] if names is None else names
            by_index, by_uuid = self._nvml.nvmlDeviceGetHandleByIndex, self._nvml.nvmlDeviceGetHandleByUUID
            handles = [by_index(int(name)) if name.isdigit() else by_uuid(name) for name in names[:count]]
            self.handles = {self._nvml.nvmlDeviceGetUUID(handle): handle for handle in handles}

    def smallest(self) -> tuple[str | None, int | None]:
        """Return name and memory in bytes of the GPU with the least memory; None if unknown."""
        memory_and_name = [
            (self._ask("MemoryInfo", handle), self._ask("Name", handle)) for handle in self.handles.values()
        ]
        return min(
            ((name, memory.total) for memory, name in memory_and_name if memory),
            key=lambda it: it[1],
            default=(None, None),
        )

    def read(self) -> list[DeviceReading]:
        """Return a reading of each GPU."""
        return [self._read(uuid, handle) for uuid, handle in self.handles.items()]

    def _read(self, uuid: str, handle: Any) -> DeviceReading:
        processes = self._ask("ComputeRunningProcesses", handle) or []
        return DeviceReading(
            moment=time.monotonic(),
            device=uuid,
            **{
                name: status.violationTime / 1e9
                for name, policy in (("thermal_s", THERMAL), ("power_s", POWER))
                if (status := self._ask("ViolationStatus", handle, policy)) is not None
            },
            limit_w=_thousandth(self._ask("EnforcedPowerLimit", handle)),
            default_limit_w=_thousandth(self._ask("PowerManagementDefaultLimit", handle)),
            temperature_c=self._ask("Temperature", handle, 0),
            energy_j=_thousandth(self._ask("TotalEnergyConsumption", handle)),
            holders={int(process.pid): int(process.usedGpuMemory or 0) for process in processes},
        )

    def _ask(self, what: str, *arguments: Any) -> Any:
        try:
            return getattr(self._nvml, f"nvmlDeviceGet{what}")(*arguments)
        except Exception:  # NVMLError: this device, driver or container does not report it
            return None


def gpus(nvml: Any = None, ask: Callable[..., str] = printed_by) -> list[Device] | None:
    """Return all GPUs in the order of the PCI bus; None if neither NVML nor nvidia-smi lists any."""
    uuids = Gpus(nvml=nvml).handles or re.findall(
        r"^GPU \d+: .*\(UUID: (GPU-\S+)\)", ask("nvidia-smi", "-L"), re.MULTILINE
    )
    return [Device(uuid, str(index), (uuid,), index) for index, uuid in enumerate(uuids)] or None


def used(before: DeviceReading, after: DeviceReading, ours: set[int]) -> DeviceUse:
    """Return the use of a device between two readings; `ours` are the pids of the launch.

    In a container NVML may report the host's pids. Then no pid of the launch is among them although the engine holds
    memory, and other processes cannot be identified.
    """
    window_s = max(after.moment - before.moment, 1e-6)
    others = {pid: size for pid, size in (before.holders | after.holders).items() if pid not in ours}
    # a counter since the driver was loaded; every pass uses some
    rose = before.energy_j is not None and after.energy_j is not None and after.energy_j > before.energy_j
    known = bool(ours & (before.holders.keys() | after.holders.keys()))
    return DeviceUse(
        device=after.device,
        thermal_share=_share(before.thermal_s, after.thermal_s, window_s),
        power_share=_share(before.power_s, after.power_s, window_s),
        power_limit_w=after.limit_w,
        power_limit_default_w=after.default_limit_w,
        temperature_c=after.temperature_c,
        window_s=window_s if rose else None,
        energy_j=(after.energy_j or 0.0) - (before.energy_j or 0.0) if rose else None,
        other_processes=len(others) if known else None,
        other_memory_bytes=sum(others.values()) if known else None,
    )


def _share(before: float | None, after: float | None, window_s: float) -> float | None:
    return None if before is None or after is None else round(max(0.0, after - before) / window_s, 4)


def _thousandth(value: float | None) -> float | None:
    return None if value is None else value / 1000
