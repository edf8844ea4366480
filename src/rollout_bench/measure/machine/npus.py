"""Ascend devices: inventory and readings from npu-smi. Not tested on an NPU.

npu-smi prints tables without a history of clocks, so throttling shows only as the flag `not_steady`. A call takes about
a second, outside timed regions, so its watts would be those of an idle chip, and are not read. npu-smi has no energy
counter, so energy is unknown.
"""

import re
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from rollout_bench.core.processes import printed_by
from rollout_bench.measure.machine.device import Device, DeviceReading

_MAPPED = re.compile(r"^\s*\d+\s+\d+\s+(\d+)\s+(?:(\d+)\s+)?[A-Za-z]", re.MULTILINE)
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
    numbered = sorted((int(logic), int(physical or logic)) for logic, physical in mapped)
    if not numbered:
        present = files if files is not None else Path("/dev").glob("davinci*")
        numbers = sorted(int(match[1]) for path in present if (match := _FILE.search(path.name)))
        # A container with only some of the files still numbers them from 0.
        numbered = list(enumerate(numbers))
    return [Device(f"npu-{number}", str(logic), (f"npu-{number}",), logic) for logic, number in numbered] or None


_CHIP = re.compile(
    r"^\|\s*(\d+)\s+\S*[A-Za-z]\S*\s*\|[^|]*\|\s*\S+\s+(\d+|-|N/?A)\s.*\n\|\s*(\d+)\s+(?:\d+\s+)?\|",
    re.MULTILINE,
)
"""| 0     Ascend910           | OK            | 178.5       36                0    / 0             |
| 0     0                   | 0000:9D:00.0  | 0           0    / 0          3416 / 65536         |

Two lines of each chip: number of the NPU, its name, watts (`-` for the second chip of an A3), degrees Celsius, or
none; number of the chip and, on an A3, its physical number."""

_PROCESS = re.compile(r"^\|\s*(\d+)\s+(\d+)\s*\|\s*(\d+)\s*\|[^|]*\|\s*(\d+)\s*\|", re.MULTILINE)
"""| 0       0                 | 123456        | python                   | 3000                    |"""


def chips_in(text: str) -> dict[tuple[int, int], int | None]:
    """Return number of the NPU and of its chip -> degrees Celsius if known, from the output of `npu-smi info`.

    They stand in the order of their Logic IDs.
    """
    return {
        (int(npu), int(chip)): int(degrees) if degrees.isdigit() else None for npu, degrees, chip in _CHIP.findall(text)
    }


def holders_by_npu(text: str) -> dict[int, dict[int, int]]:
    """Return Logic ID -> pid -> bytes of memory, from the output of `npu-smi info`."""
    logic = {place: number for number, place in enumerate(chips_in(text))}
    holders: dict[int, dict[int, int]] = {}
    for npu, chip, pid, size_mib in _PROCESS.findall(text):
        number = logic.get((int(npu), int(chip)))
        if number is not None:
            holders.setdefault(number, {})[int(pid)] = int(size_mib) << 20
    return holders


class Npus:
    """NPUs that npu-smi reads; none without npu-smi.

    Args:
        names: Logic IDs of NPUs; None: from 0.
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
        temperatures = dict(enumerate(chips_in(text).values()))
        return [
            DeviceReading(moment, f"NPU {number}", holders.get(number, {}), temperatures[number])
            for number in self._numbers
            if number in temperatures
        ]
