"""The Ascend NPUs of a machine, as npu-smi lists them. Written from its published output; no NPU has run it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from rollout_bench.engines.processes import printed_by
from rollout_bench.placement.device import Device

VARIABLE = "ASCEND_RT_VISIBLE_DEVICES"

_MAPPED = re.compile(r"^\s*(\d+)\s+(\d+)\s+(\d+)\s+(?:(\d+)\s+)?[A-Za-z]", re.MULTILINE)
"""NPU ID, Chip ID, Chip Logic ID, in later versions Chip Phy-ID, Chip Name; a card's controller has `-` for the third.

ASCEND_RT_VISIBLE_DEVICES counts by the logic id."""

_FILE = re.compile(r"davinci(\d+)$")
"""/dev/davinci0; /dev/davinci_manager is none."""


def npu_smi(*arguments: str) -> str:
    """What `npu-smi info` prints; empty where there is none."""
    return printed_by("npu-smi", "info", *arguments)


def npus(ask: Callable[..., str] = npu_smi, files: Iterable[Path] | None = None) -> list[Device] | None:
    """All NPUs that this process can see, by number; None where neither npu-smi nor a device file tells of one.

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
