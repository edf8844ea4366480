"""Ascend devices: which there are, and what they say of themselves, by npu-smi. No NPU has run it.

It prints tables for people, and no history of clocks: of throttling it says nothing, so `not_steady` is what is left.
A call takes about a second, outside of any timed region. It has no counter of energy, but says power, which is sampled
in the background while a pass runs.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from rollout_bench.core.processes import printed_by
from rollout_bench.measure.machine.device import Device
from rollout_bench.measure.machine.gpus import DeviceReading

VARIABLE = "ASCEND_RT_VISIBLE_DEVICES"

_MAPPED = re.compile(r"^\s*(\d+)\s+(\d+)\s+(\d+)\s+(?:(\d+)\s+)?[A-Za-z]", re.MULTILINE)
"""NPU ID, Chip ID, Chip Logic ID, in later versions Chip Phy-ID, Chip Name; a card's controller has `-` for the third.

ASCEND_RT_VISIBLE_DEVICES counts by the logic id."""

_FILE = re.compile(r"davinci(\d+)$")
"""/dev/davinci0; /dev/davinci_manager is none."""


def npu_smi(*arguments: str) -> str:
    """Return what `npu-smi info` prints; empty where there is none."""
    return printed_by("npu-smi", "info", *arguments)


def npus(ask: Callable[..., str] = npu_smi, files: Iterable[Path] | None = None) -> list[Device] | None:
    """Return all NPUs that this process can see, by number; None where neither npu-smi nor a device file tells of one.

    Args:
        ask: returns what `npu-smi info` with further arguments prints.
        files: device files; those of /dev if None.
    """
    found = [
        _device(int(logic), int(physical or logic), int(card))
        for card, _, logic, physical in _MAPPED.findall(ask("-m"))
    ]
    if not found:
        present = files if files is not None else Path("/dev").glob("davinci*")
        numbers = [int(match[1]) for path in present if (match := _FILE.search(path.name))]
        # A container that has some of the files still counts them from 0.
        found = [_device(logic, number, number) for logic, number in enumerate(sorted(numbers))]
    return sorted(found, key=lambda device: int(device.visible)) or None


def _device(logic: int, physical: int, card: int) -> Device:
    return Device(f"npu-{physical}", str(logic), (f"npu-{physical}",), card)


_DEVICE = re.compile(r"^\|\s*(\d+)\s+\S*[A-Za-z]\S*\s*\|[^|]*\|\s*([\d.]+|-|NA)\s+(\d+)\s")
"""| 0     910B3               | OK            | 93.8        47                0    / 0             |

Number, watts, degrees Celsius; a chip's own line has a number for the name.
Of a card with two chips the second chip's line has `-` for the power of the card."""

_PROCESS = re.compile(r"^\|\s*(\d+)\s+\d+\s*\|\s*(\d+)\s*\|[^|]*\|\s*(\d+)\s*\|", re.MULTILINE)
"""| 0       0                 | 123456        | python                   | 3000                    |"""


def holders_by_npu(text: str) -> dict[int, dict[int, int]]:
    """Return number of each NPU that processes use -> pid -> bytes of its memory, from what `npu-smi info` printed."""
    holders: dict[int, dict[int, int]] = {}
    for npu, pid, size_mib in _PROCESS.findall(text):
        holders.setdefault(int(npu), {})[int(pid)] = int(size_mib) << 20
    return holders


class Npus:
    """The devices of a launch; none where there is no npu-smi.

    Args:
        count: how many devices the engine uses: the first of those that `ASCEND_RT_VISIBLE_DEVICES` names.
        variables: the engine's environment.
        ask: returns what `npu-smi info` prints.
    """

    def __init__(self, count: int, variables: Mapping[str, str], ask: Callable[[], str] = npu_smi) -> None:
        named = [name.strip() for name in variables.get("ASCEND_RT_VISIBLE_DEVICES", "").split(",") if name.strip()]
        self._numbers = [int(name) for name in named if name.isdigit()][:count] or list(range(count))
        self._ask = ask

    def read(self) -> list[DeviceReading]:
        """Return a reading of each device that npu-smi names, in MiB and degrees Celsius as it prints them."""
        text = self._ask()
        moment = time.monotonic()
        temperatures = {int(found[1]): int(found[3]) for line in text.splitlines() if (found := _DEVICE.match(line))}
        holders = holders_by_npu(text)
        return [
            DeviceReading(
                moment=moment,
                device=_name(number),
                thermal_s=None,
                power_s=None,
                limit_w=None,
                default_limit_w=None,
                temperature_c=temperatures[number],
                holders=holders.get(number, {}),
            )
            for number in self._numbers
            if number in temperatures
        ]

    @property
    def why_no_energy(self) -> str:
        """Why the energy of a device can't be known, where that is so."""
        return "npu-smi does not count the energy of its NPUs"


def _name(number: int) -> str:
    return f"NPU {number}"
