"""Sleep of a colocated engine during training: vLLM releases device memory, and allocates it again later.

Only memory in vLLM's own pool is released: weights and KV cache. The trainer's memory from torch is outside the pool,
in the same process, and stays. vLLM allocates from the device itself, so torch's cached free memory must be returned to
the device first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from rollout_bench.core.errors import MeasuringFailed

if TYPE_CHECKING:
    import torch


class DeviceMemory(NamedTuple):
    """Memory of a device, in bytes; 0 on a CPU.

    Attributes:
        free: free memory.
        total: total memory.
    """

    free: int
    total: int


class EngineSleep:
    """Puts an engine to sleep and wakes it.

    Args:
        llm: vLLM's engine, made with `enable_sleep_mode`.
        level: sleep level, 1 or 2.
        device: its device.
    """

    def __init__(self, llm: Any, level: int, device: torch.device) -> None:
        self._llm, self._level, self._device = llm, level, device

    def fall_asleep(self) -> None:
        """Let the engine release its memory."""
        self._llm.sleep(level=self._level)

    def memory(self) -> DeviceMemory:
        """Return the current memory of the device."""
        if self._device.type == "cpu":
            return DeviceMemory(0, 0)
        import torch

        return DeviceMemory(*map(int, torch.cuda.mem_get_info(self._device)))

    def wake_weights(self) -> None:
        """Let the engine allocate memory for its weights, which an update then fills.

        Raises:
            MeasuringFailed: if the device has too little free memory.
        """
        self._wake("weights")

    def wake_kv_cache(self) -> None:
        """Let the engine allocate its KV cache, so that it can generate again.

        Raises:
            MeasuringFailed: if the device has too little free memory.
        """
        self._wake("kv_cache")

    def _wake(self, tag: str) -> None:
        if self._device.type == "cuda":
            import torch

            torch.cuda.empty_cache()
        try:
            self._llm.wake_up(tags=[tag])
        except Exception as error:  # vLLM's allocator raises RuntimeError, torch its own error
            if "out of memory" not in str(error).lower():
                raise
            what = "the KV cache" if tag == "kv_cache" else "the weights"
            raise MeasuringFailed(
                "waking_out_of_memory",
                f"the engine can't wake: beside what the trainer keeps on the device there is no room for {what}",
                "lower gpu_memory_utilization; docs/whole-step.md says how much a trainer keeps",
            ) from error
