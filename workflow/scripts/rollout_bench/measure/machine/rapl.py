"""The energy of the processor and its memory, by the kernel's counters (RAPL), in Intel's and AMD's names alike.

They are of the whole machine: what others compute meanwhile is part of them. Virtual machines have none, and since
Linux 5.10 only root reads them (CVE-2020-8694). No machine with such counters has run this: tests read a tree of files
in the kernel's layout (Documentation/power/powercap/powercap.rst).
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path

from rollout_bench.contracts.spec import Platform
from rollout_bench.measure.machine.gpus import DeviceReading

POWERCAP = Path("/sys/class/powercap")

WANTED = ("package", "dram")
"""How the names of the zones begin that are summed. Of the others core and uncore are parts of a package, and psys has
packages as its parts."""


def risen(before_uj: int, after_uj: int, range_uj: int) -> int:
    """Return by how much a counter rose that begins anew at 0 after `range_uj`, at most once between; microjoules."""
    return after_uj - before_uj if after_uj >= before_uj else after_uj - before_uj + range_uj


@dataclass
class _Zone:
    """One counter: its folder, its name, after how many microjoules it begins anew, and what it said last."""

    folder: Path
    name: str
    range_uj: int
    last_uj: int
    total_uj: int = 0

    def read(self) -> None:
        """Add what it rose by since it was read last; raise OSError or ValueError where it can't be read."""
        now_uj = int((self.folder / "energy_uj").read_text())
        self.total_uj += risen(self.last_uj, now_uj, self.range_uj)
        self.last_uj = now_uj


class Rapl:
    """The counters of this machine.

    Attributes:
        sample_s: how often they are read during a pass, so that none begins anew twice unseen: the smallest range,
            65 kJ of memory, lasts for half a minute at 2 kW.
        why_no_energy: why nobody knows the energy; empty where it is known.

    Args:
        root: where the kernel shows them.
    """

    sample_s = 30.0

    def __init__(self, root: Path = POWERCAP) -> None:
        self._lock = threading.Lock()
        self._zones: list[_Zone] = []
        self.why_no_energy = ""
        try:
            self._zones = _zones(root)
        except (OSError, ValueError) as error:
            self.why_no_energy = _unreadable(root, error)
        if not self._zones and not self.why_no_energy:
            self.why_no_energy = f"{root} has no counters of a processor's energy (RAPL); virtual machines have none"

    @property
    def name(self) -> str:
        """The counters that are summed: package-0, dram."""
        return ", ".join(zone.name for zone in self._zones)

    def read(self) -> list[DeviceReading]:
        """Return what they counted since the first reading, as one device; nothing where they can't be read."""
        self.watts()
        if not self._zones:
            return []
        return [
            DeviceReading(
                moment=time.monotonic(),
                device=self.name,
                thermal_s=None,
                power_s=None,
                limit_w=None,
                default_limit_w=None,
                temperature_c=None,
                holders={},
                energy_j=sum(zone.total_uj for zone in self._zones) / 1e6,
            )
        ]

    def watts(self) -> dict[str, float]:
        """Read the counters, so that what they rose by is not lost when they begin anew; they tell no power."""
        with self._lock:
            try:
                for zone in self._zones:
                    zone.read()
            except (OSError, ValueError) as error:
                self._zones, self.why_no_energy = [], _unreadable(zone.folder, error)
        return {}


def may_know_energy(platform: Platform, root: Path = POWERCAP) -> bool:
    """Return whether the energy of launches on `platform` may be known, before any is measured.

    Drivers of accelerators tell energy or power. A CPU does where this process can read the counters; on other nodes of
    a cluster it may be otherwise, and a figure that was asked for then says so.
    """
    return platform in ("cuda", "ascend") or (platform == "cpu" and not Rapl(root).why_no_energy)


def _zones(root: Path) -> list[_Zone]:
    """Return the zones that are summed; raise OSError or ValueError where one of them can't be read.

    `intel-rapl-mmio:0` counts what `intel-rapl:0` counts, another way.
    """
    found = []
    for folder in sorted(root.glob("intel-rapl:*")):
        name = (folder / "name").read_text().strip()
        if name.startswith(WANTED):
            range_uj = int((folder / "max_energy_range_uj").read_text())
            found.append(_Zone(folder, name, range_uj, int((folder / "energy_uj").read_text())))
    return found


def _unreadable(place: Path, error: Exception) -> str:
    if isinstance(error, PermissionError):
        return f"{error.filename} can be read by root only"
    return f"the counters of energy below {place} can't be read: {error}"
