"""A device that a launch can hold, its readings, and the error if such devices are missing."""

from dataclasses import dataclass

from rollout_bench.core.errors import MeasuringFailed


@dataclass(frozen=True)
class Device:
    """One GPU or NPU, or on cpu a block of cores.

    Args:
        name: unique name on the machine, independent of visibility: a GPU's UUID, npu-0, cores-0-3.
        visible: its number or, for a part of a GPU, its name: the engine's word for it in the platform's variable.
        parts: exclusive parts. Devices with a common part exclude each other, because workflows may divide cores into
            different blocks.
        number: its number in the vendor's tools, as used for links and memory; None if it has none.
        cores: the cores of a block.
    """

    name: str
    visible: str
    parts: tuple[str, ...]
    number: int | None = None
    cores: tuple[int, ...] = ()


@dataclass(frozen=True)
class DeviceReading:
    """A device at one time; None for values that the vendor's tool does not report.

    `holders`: pid -> bytes of the device's memory.
    """

    moment: float
    device: str
    holders: dict[int, int]
    temperature_c: int | None = None
    thermal_s: float | None = None
    power_s: float | None = None
    limit_w: float | None = None
    default_limit_w: float | None = None
    energy_j: float | None = None


class DeviceError(MeasuringFailed):
    """This machine does not have the required devices, so waiting is useless."""
