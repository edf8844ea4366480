"""A colocated engine sleeps and wakes in vLLM's order; what goes wrong then is told with what to do."""

import pytest
import torch

from rollout_bench.core.errors import MeasuringFailed
from rollout_bench.modes.placement.sleep import EngineSleep

VLLM_SAYS = "CUDA Error: out of memory at /workspace/csrc/cumem_allocator.cpp:119"
"""As vLLM's allocator raises it, in a RuntimeError."""


class RecordedLLM:
    """Takes what is asked of an `LLM`, and notes it."""

    def __init__(self, error: Exception | None = None) -> None:
        self.calls: list[str] = []
        self.error = error

    def sleep(self, level: int) -> None:
        self.calls.append(f"sleep {level}")

    def wake_up(self, tags: list[str]) -> None:
        self.calls.append(f"wake {'+'.join(tags)}")
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize("error", [RuntimeError(VLLM_SAYS), torch.OutOfMemoryError("CUDA out of memory. Tried to")])
def test_an_engine_without_room_to_wake_fails_by_name(error: Exception):
    sleep = EngineSleep(RecordedLLM(error), 1, torch.device("cpu"))
    with pytest.raises(MeasuringFailed) as failed:
        sleep.wake_kv_cache()
    assert failed.value.category == "waking_out_of_memory"
    assert "no room for the KV cache" in failed.value.cause
    assert "lower gpu_memory_utilization" in failed.value.fix
    with pytest.raises(MeasuringFailed, match="no room for the weights"):
        sleep.wake_weights()
