"""Many processes that want the devices of one node at the same time: how long until each has had one."""

from __future__ import annotations

import multiprocessing
import resource
import time
from dataclasses import dataclass
from pathlib import Path

from rollout_bench.measure.machine.device import Device
from rollout_bench.measure.machine.leases import Claim, Claims
from rollout_bench.measure.machine.links import Links


@dataclass(frozen=True)
class Contention:
    """What it took until each of `holders` processes had held one of `devices` for `hold_s` seconds."""

    holders: int
    devices: int
    hold_s: float
    wall_s: float
    processor_s: float

    @property
    def least_s(self) -> float:
        """What it would have taken if no time passed between two holders of a device."""
        return -(-self.holders // self.devices) * self.hold_s


def contend(folder: Path, holders: int, devices: int, hold_s: float) -> Contention:
    """Start `holders` processes at once, whose claims lie in `folder`.

    Raises:
        SystemExit: one of them failed.
    """
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    processes = [
        multiprocessing.get_context("fork").Process(target=_hold, args=(folder, number, devices, hold_s))
        for number in range(holders)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    wall_s, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if failed := sum(process.exitcode != 0 for process in processes):
        raise SystemExit(f"leases: {failed} of {holders} processes failed")
    processor_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Contention(holders, devices, hold_s, wall_s, processor_s)


def _hold(folder: Path, number: int, count: int, hold_s: float) -> None:
    devices = [Device(f"made-{place}", str(place), (f"made-{place}",), place) for place in range(count)]
    claim = Claim(
        name=f"offline/made/launch-{number}",
        results=str(folder),
        pid=multiprocessing.current_process().pid or 0,
        isolation="per_device",
        holds=[],
    )
    with Claims(folder).taken(claim, devices, (1, 1, Links()), time.sleep, lambda _: None):
        time.sleep(hold_s)
