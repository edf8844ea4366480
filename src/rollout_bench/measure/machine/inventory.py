"""Devices of this machine that this process may use, and the processes that hold their memory.

Devices are visible accelerators, or blocks of cores.
"""

import math
import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path

from rollout_bench.contracts.spec import Isolation, Platform
from rollout_bench.measure.machine import gpus, npus
from rollout_bench.measure.machine.device import Device, DeviceError
from rollout_bench.measure.machine.host import number_in

NONE = ("", "NoDevFiles")
"""Values that hide all devices; Slurm sets the second for jobs without GPUs."""


def restricted_devices(variable: str, text: str | None, devices: Sequence[Device]) -> list[Device]:
    """Return the devices that `variable` with value `text` names, in its order; all if `text` is None.

    As in CUDA, a negative number hides all later entries, and UUIDs may be abbreviated. Engines get the number of a
    GPU, since vLLM 0.23 reads no UUID. Parts of a GPU (MIG) keep their names.

    Raises:
        DeviceError: if it names a missing device, or a device twice.
    """
    if text is None:
        return list(devices)
    chosen: list[Device] = []
    for word in [] if text.strip() in NONE else [word.strip() for word in text.split(",")]:
        if word.startswith("-") and word[1:].isdigit():
            break
        device = _named_device(variable, text, word, devices)
        if any(device.name == other.name for other in chosen):
            raise _wrong(variable, text, f"it names {word} twice")
        chosen.append(device)
    return chosen


def _named_device(variable: str, text: str, word: str, devices: Sequence[Device]) -> Device:
    if word.startswith("MIG-"):
        return Device(name=word, visible=word, parts=(word,))
    uuid, number = word.startswith("GPU-") and word, word.isdigit() and str(int(word))
    named = [it for it in devices if (uuid and it.name.startswith(uuid)) or (number and it.visible == number)]
    if len(named) == 1:
        return named[0]
    devices_here = f"this machine has {', '.join(device.visible for device in devices) or 'none'}"
    raise _wrong(variable, text, f"{word} names several" if named else f"there is no device {word!r}, {devices_here}")


def _wrong(variable: str, text: str, what: str) -> DeviceError:
    return DeviceError("visible_devices", f"{variable}={text}: {what}", f"correct {variable}, or unset it")


MEMORY_NODES = "CPU_VISIBLE_MEMORY_NODES"
"""vLLM on CPU uses only allowed cores of the first NUMA node in this variable."""

SYSTEM = Path("/sys/devices/system/cpu")

CGROUP = Path("/sys/fs/cgroup")


def granted_cores(cgroup: Path = CGROUP) -> float:
    """Return the number of cores whose time a container may use; infinity without a limit."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
        return int(quota) / int(period)
    except (OSError, ValueError):  # no limit ("max"), another version of cgroups, or none
        return math.inf


def core_blocks(count: int, allowed: Collection[int] | None = None, system: Path = SYSTEM) -> list[Device]:
    """Return the allowed cores in `count` blocks of equal size; remaining cores belong to no block.

    A container with a limit of processor time, such as 2.5 cores, uses no more whole cores than the limit grants: the
    kernel would suspend further threads. As far as possible, a block contains all threads of a core and cores of the
    same socket.

    Raises:
        DeviceError: if there are fewer cores than blocks.
    """
    cores = sorted(os.sched_getaffinity(0) if allowed is None else allowed)
    most = max(1, int(min(len(cores), granted_cores())))
    if count > most:
        raise DeviceError(
            "too_few_devices",
            f"devices: {count} blocks of cores are wanted, and this process may run on {most}",
            f"set devices to at most {most}",
        )
    places = "physical_package_id", "core_id"
    cores.sort(
        key=lambda core: (
            _node(core, system),
            *(number_in(f"{system}/cpu{core}/topology/{it}", r"(-?\d+)") or 0 for it in places),
        )
    )
    size = most // count
    return [_block(sorted(cores[size * number : size * (number + 1)])) for number in range(count)]


def memory_nodes(cores: Iterable[int], system: Path = SYSTEM) -> str:
    """Return the NUMA nodes of `cores`, in the format of `MEMORY_NODES`."""
    return ",".join(str(node) for node in sorted({_node(core, system) for core in cores}))


def _block(cores: Sequence[int]) -> Device:
    """Return the block of the sorted `cores`."""
    runs = [list(run) for _, run in groupby(enumerate(cores), lambda pair: pair[1] - pair[0])]
    text = ",".join(f"{run[0][1]}-{run[-1][1]}" if len(run) > 1 else str(run[0][1]) for run in runs)  # as in taskset -c
    return Device(f"cores-{text}", text, tuple(f"core-{core}" for core in cores), cores=tuple(cores))


def _node(core: int, system: Path) -> int:
    return next((int(path.name[4:]) for path in (system / f"cpu{core}").glob("node[0-9]*")), 0)


VARIABLES = {"cuda": "CUDA_VISIBLE_DEVICES", "ascend": "ASCEND_RT_VISIBLE_DEVICES"}
"""Platform -> variable with the devices that a process may use."""


def visible_devices(
    platform: Platform, blocks: int | None = None, variables: Mapping[str, str] = os.environ
) -> list[Device] | None:
    """Return the devices that `variables` allow, in order; None if the node's devices are unknown.

    Args:
        platform: the platform; endpoints have no local devices.
        blocks: number of blocks of cores, on cpu; None: one.
        variables: environment of the process that will use the devices.

    Raises:
        DeviceError: if a variable names a missing device, or there are fewer cores than blocks.
    """
    if platform == "cpu":
        return core_blocks(blocks or 1)
    if platform == "unknown":
        return []
    devices = gpus.gpus() if platform == "cuda" else npus.npus()
    name = VARIABLES[platform]
    return None if devices is None else restricted_devices(name, variables.get(name), devices)


def usual_isolation(platform: Platform) -> Isolation:
    """Return the default isolation.

    Launches on the same processor or server slow each other down, so these are exclusive.
    """
    return "per_device" if platform in VARIABLES else "exclusive"


LIMIT_S = 50.0
"""Time limit for the release of device memory in seconds, as in vllm-ascend's own tests."""


def pids_on(platform: Platform, devices: Sequence[Device] | None = None) -> set[int]:
    """Return pids that hold memory of `devices`, or of any device if None. Not tested on an NPU.

    The result is empty if NVML or npu-smi is missing or lists no processes. In a container it may list the host's pids.
    """
    if platform == "cuda":
        names = None if devices is None else [device.name for device in devices]
        return {pid for reading in gpus.Gpus(names).read() for pid in reading.holders}
    held = npus.holders_by_npu(npus.npu_smi()) if platform == "ascend" else {}
    numbers = held if devices is None else [device.number or 0 for device in devices]
    return {pid for number in numbers for pid in held.get(number, ())}


def wait_until_free(
    holders: Callable[[], Collection[int]], pause: Callable[[float], None] = time.sleep, limit_s: float = LIMIT_S
) -> None:
    """Wait at most `limit_s` seconds until `holders` returns no processes.

    A driver needs some time to release the device memory of ended processes.
    """
    deadline = time.monotonic() + limit_s
    while holders() and time.monotonic() < deadline:
        pause(1.0)
