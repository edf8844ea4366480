"""Sleep of a colocated engine during training: vLLM releases device memory, and allocates it again later.

Only memory in vLLM's own pool is released: weights and KV cache. The trainer's memory from torch is outside the pool,
in the same process, and stays. vLLM allocates from the device itself, so torch's cached free memory must be returned to
the device first.
"""

from typing import Any, Literal

import torch

from rollout_bench.core.errors import MeasuringFailed


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

    def memory(self) -> tuple[int, int]:
        """Return the current free and total memory of the device, in bytes."""
        free, total = torch.cuda.mem_get_info(self._device)
        return int(free), int(total)

    def wake(self, tag: Literal["weights", "kv_cache"]) -> None:
        """Let the engine allocate memory for its weights, which an update then fills, or for its KV cache.

        Raises:
            MeasuringFailed: if the device has too little free memory.
        """
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
