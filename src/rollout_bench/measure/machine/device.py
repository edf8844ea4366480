"""A device that a launch can hold, and why there are none to hold."""

from __future__ import annotations

from dataclasses import dataclass

from rollout_bench.core.errors import UserError


@dataclass(frozen=True)
class Device:
    """One GPU or NPU, or on cpu a block of cores.

    Args:
        name: what it is called on the whole machine, whatever is visible to whom: a GPU's UUID, npu-0, cores-0-3.
        visible: what the engine is to be told, in the words that the variable of its platform has already.
        parts: what nobody else may hold meanwhile. Two devices with a part in common exclude each other: blocks of
            cores need not be the same in two workflows.
        number: its number in the platform's own tools, which name links and memory by it; None where it has none.
        cores: the cores of a block.
    """

    name: str
    visible: str
    parts: tuple[str, ...]
    number: int | None = None
    cores: tuple[int, ...] = ()


class DeviceError(UserError):
    """There are no such devices on this machine, however long one waits.

    Args:
        category: of the failure.
    """

    def __init__(self, category: str, problem: str, remedy: str) -> None:
        self.category = category
        super().__init__(problem, remedy)
