"""Cores as devices: the cores that this process may run on, in blocks of one size."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from rollout_bench.placement.device import Device, DeviceError

MEMORY_NODES = "CPU_VISIBLE_MEMORY_NODES"
"""vLLM on CPU takes cores of the first of these NUMA nodes alone, among those that it may run on."""

SYSTEM = Path("/sys/devices/system/cpu")


def blocks(count: int, allowed: Collection[int] | None = None, system: Path = SYSTEM) -> list[Device]:
    """The allowed cores in `count` blocks of one size; what is left over is in none.

    Threads of one core, and cores of one socket, come into the same block as far as they can.

    Raises:
        DeviceError: there are fewer cores than blocks.
    """
    cores = sorted(os.sched_getaffinity(0) if allowed is None else allowed)
    if count > len(cores):
        raise DeviceError(
            "too_few_devices",
            f"devices: {count} blocks of cores are wanted, and this process may run on {len(cores)}",
            f"set devices to at most {len(cores)}",
        )
    if count == 1:
        return [_block(cores)]
    cores.sort(key=lambda core: (_node(core, system), *_place(core, system), core))
    size = len(cores) // count
    return [_block(sorted(cores[size * number : size * (number + 1)])) for number in range(count)]


def written(cores: Iterable[int]) -> str:
    """Numbers as `taskset -c` takes them: 0-3,8."""
    runs: list[list[int]] = []
    for core in sorted(cores):
        if runs and core == runs[-1][-1] + 1:
            runs[-1].append(core)
        else:
            runs.append([core])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def memory_nodes(cores: Iterable[int], system: Path = SYSTEM) -> str:
    """The NUMA nodes of `cores`, as `MEMORY_NODES` lists them."""
    return ",".join(str(node) for node in sorted({_node(core, system) for core in cores}))


def are_all(cores: Collection[int]) -> bool:
    """Whether `cores` are all that this process may run on."""
    return set(cores) == os.sched_getaffinity(0)


def _block(cores: Sequence[int]) -> Device:
    text = written(cores)
    return Device(f"cores-{text}", text, tuple(f"core-{core}" for core in cores), cores=tuple(cores))


def _place(core: int, system: Path) -> tuple[int, int]:
    folder = system / f"cpu{core}" / "topology"
    return _number(folder / "physical_package_id"), _number(folder / "core_id")


def _node(core: int, system: Path) -> int:
    found = [path.name[4:] for path in (system / f"cpu{core}").glob("node[0-9]*")]
    return int(found[0]) if found else 0


def _number(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0
