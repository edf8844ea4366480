"""What variables such as CUDA_VISIBLE_DEVICES leave of a machine's devices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rollout_bench.placement.device import Device, DeviceError

NONE = ("", "NoDevFiles")
"""Values that hide all devices; the second is what Slurm gives to jobs without GPUs."""


def restricted(variable: str, text: str | None, devices: Sequence[Device]) -> list[Device]:
    """The devices that `variable` with the value `text` names, in its order and its words; all where it is not set.

    A negative number hides what follows it, as in CUDA. UUIDs may be abbreviated; parts of a GPU (MIG) are taken as
    they are named.

    Raises:
        DeviceError: it names what there is not, or one device twice.
    """
    if text is None:
        return list(devices)
    chosen: list[Device] = []
    for word in [] if text.strip() in NONE else [word.strip() for word in text.split(",")]:
        if word.startswith("-") and word[1:].isdigit():
            break
        device = _named(variable, text, word, devices)
        if any(device.name == other.name for other in chosen):
            raise _wrong(variable, text, f"it names {word} twice")
        chosen.append(device)
    return chosen


def _named(variable: str, text: str, word: str, devices: Sequence[Device]) -> Device:
    if word.startswith("MIG-"):
        return Device(name=word, visible=word, parts=(word,))
    if word.isdigit():
        found = [device for device in devices if device.visible == str(int(word))]
    else:
        found = [device for device in devices if word.startswith("GPU-") and device.name.startswith(word)]
    if len(found) == 1:
        return replace(found[0], visible=word)
    numbers = [device.visible for device in devices]
    there = f"this machine has {', '.join(numbers)}" if numbers else "this machine has none"
    raise _wrong(variable, text, f"there is no device {word!r}, {there}" if not found else f"{word} names several")


def _wrong(variable: str, text: str, what: str) -> DeviceError:
    return DeviceError("visible_devices", f"{variable}={text}: {what}", f"correct {variable}, or unset it")
