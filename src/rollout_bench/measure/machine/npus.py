"""Ascend devices: inventory and readings from npu-smi. Not tested on an NPU.

npu-smi prints tables without a history of clocks, so throttling shows only as the flag `not_steady`. A call takes about
a second, outside timed regions. npu-smi has no energy counter, so energy is unknown.
"""

import re
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from rollout_bench.core.processes import printed_by
from rollout_bench.measure.machine.device import Device, DeviceReading

_MAPPED = re.compile(r"^\s*(\d+)\s+(\d+)\s+(\d+)\s+(?:(\d+)\s+)?[A-Za-z]", re.MULTILINE)
"""NPU ID, Chip ID, Chip Logic ID, Chip Phy-ID (later versions), Chip Name; a card's controller has `-` as Logic ID.

ASCEND_RT_VISIBLE_DEVICES uses the Logic ID."""

_FILE = re.compile(r"davinci(\d+)$")
"""Device files such as /dev/davinci0, but not /dev/davinci_manager."""


def npu_smi(*arguments: str) -> str:
    """Return the output of `npu-smi info`; empty if it is not installed."""
    return printed_by("npu-smi", "info", *arguments)


def npus(ask: Callable[..., str] = npu_smi, files: Iterable[Path] | None = None) -> list[Device] | None:
    """Return all visible NPUs, by number; None if neither npu-smi nor device files show any.

    Args:
        ask: returns the output of `npu-smi info` with further arguments.
        files: device files; None: those in /dev.
    """
    mapped = _MAPPED.findall(ask("-m"))
    found = sorted((int(logic), int(physical or logic), int(card)) for card, _, logic, physical in mapped)
    if not found:
        present = files if files is not None else Path("/dev").glob("davinci*")
        numbers = sorted(int(match[1]) for path in present if (match := _FILE.search(path.name)))
        # A container with only some of the files still numbers them from 0.
        found = [(logic, number, number) for logic, number in enumerate(numbers)]
    names = [f"npu-{physical}" for _, physical, _ in found]
    return [Device(name, str(it[0]), (name,), it[2]) for name, it in zip(names, found, strict=True)] or None


_DEVICE = re.compile(r"^\|\s*(\d+)\s+\S*[A-Za-z]\S*\s*\|[^|]*\|\s*([\d.]+|-|NA)\s+(\d+)\s")
"""| 0     910B3               | OK            | 93.8        47                0    / 0             |

Number, watts, degrees Celsius; the line of a chip has a number as its name.
On a card with two chips, the line of the second chip has `-` as power."""

_PROCESS = re.compile(r"^\|\s*(\d+)\s+\d+\s*\|\s*(\d+)\s*\|[^|]*\|\s*(\d+)\s*\|", re.MULTILINE)
"""| 0       0                 | 123456        | python                   | 3000                    |"""


def holders_by_npu(text: str) -> dict[int, dict[int, int]]:
    """Return NPU number -> pid -> bytes of memory, from the output of `npu-smi info`."""
    holders: dict[int, dict[int, int]] = {}
    for npu, pid, size_mib in _PROCESS.findall(text):
        holders.setdefault(int(npu), {})[int(pid)] = int(size_mib) << 20
    return holders


class Npus:
    """NPUs that npu-smi reads; none without npu-smi.

    Args:
        names: numbers of NPUs; None: from 0.
        count: number of `names` that are used.
        ask: returns the output of `npu-smi info`.
    """

    def __init__(self, names: Sequence[str] | None, count: int, ask: Callable[[], str] = npu_smi) -> None:
        self._numbers = [int(name) for name in names or () if name.isdigit()][:count] or list(range(count))
        self._ask = ask

    def read(self) -> list[DeviceReading]:
        """Return a reading of each NPU that npu-smi lists: degrees Celsius, and bytes of memory."""
        text = self._ask()
        moment, holders = time.monotonic(), holders_by_npu(text)
        temperatures = {int(found[1]): int(found[3]) for line in text.splitlines() if (found := _DEVICE.match(line))}
        return [
            DeviceReading(moment, f"NPU {number}", holders.get(number, {}), temperatures[number])
            for number in self._numbers
            if number in temperatures
        ]
