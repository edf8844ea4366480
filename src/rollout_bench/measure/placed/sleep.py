"""A colocated engine's sleep while its device trains: vLLM gives the device's memory back, and takes it again.

What vLLM made in its own memory pool sleeps: weights and KV cache. What torch allocates for the trainer lies outside of
that pool, in the same process, and stays. vLLM takes its memory from the device itself, so what torch only keeps in
store has to be given back to the device before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from rollout_bench.measure.server.stream import ServingFailed

if TYPE_CHECKING:
    import torch


class DeviceMemory(NamedTuple):
    """Memory of a device, in bytes; on a CPU nothing.

    Attributes:
        free: of it.
        total: all of it.
    """

    free: int
    total: int


class EngineSleep:
    """Puts an engine to sleep, and wakes it.

    Args:
        llm: vLLM's engine, made with `enable_sleep_mode`.
        level: how deeply it sleeps: 1 or 2.
        device: its device.
    """

    def __init__(self, llm: Any, level: int, device: torch.device) -> None:
        self._llm, self._level, self._device = llm, level, device

    def fall_asleep(self) -> None:
        """Have the engine give its memory back."""
        self._llm.sleep(level=self._level)

    def memory(self) -> DeviceMemory:
        """Return what the device has at this moment."""
        if self._device.type == "cpu":
            return DeviceMemory(0, 0)
        import torch

        return DeviceMemory(*map(int, torch.cuda.mem_get_info(self._device)))

    def wake_weights(self) -> None:
        """Make the engine allocate memory for its weights, which an update then fills.

        Raises:
            ServingFailed: the device has not enough left.
        """
        self._wake("weights")

    def wake_kv_cache(self) -> None:
        """Have the engine take the memory of its KV cache, so that it can generate again.

        Raises:
            ServingFailed: the device has not enough left.
        """
        self._wake("kv_cache")

    def _wake(self, tag: str) -> None:
        if self._device.type == "cuda":
            import torch

            torch.cuda.empty_cache()
        try:
            self._llm.wake_up(tags=[tag])
        except Exception as error:  # vLLM's allocator raises RuntimeError, torch an error of its own
            if "out of memory" not in str(error).lower():
                raise
            what = "the KV cache" if tag == "kv_cache" else "the weights"
            raise ServingFailed(
                "waking_out_of_memory",
                f"the engine can't wake: beside what the trainer keeps on the device there is no room for {what}",
                "lower gpu_memory_utilization; docs/whole-step.md says how much a trainer keeps",
            ) from error
