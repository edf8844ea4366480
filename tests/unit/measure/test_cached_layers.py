"""The KV cache is read from the tensors of the attention layers, and what a layer says counts where they are silent."""

from typing import Any

import torch

from rollout_bench.measure.probes.census import cache_held

TOKENS = 4 * 16  # blocks x tokens in each


class Layer(torch.nn.Module):
    """An attention layer as vLLM has it, whose cache has 8 values for each key and as many for each value."""

    def __init__(self, dtype: torch.dtype, said: str = "auto", shares: str | None = None, apart: bool = False) -> None:
        super().__init__()
        self.kv_cache_dtype, self.kv_sharing_target_layer_name = said, shares
        half = torch.zeros(4, 1, 16, 8, dtype=dtype)
        self.kv_cache: Any = (half, half.clone()) if apart else torch.cat([half, half], dim=-1)


def held(*layers: torch.nn.Module) -> dict[str, Any] | None:
    return cache_held(torch.nn.Sequential(*layers, torch.nn.Linear(2, 2)), TOKENS)


def test_two_layers_of_bf16_and_of_fp8() -> None:
    assert held(Layer(torch.bfloat16), Layer(torch.bfloat16)) == {"layers": {"bfloat16": 2}, "bytes_per_token": 64}
    one_byte = [Layer(torch.uint8, "fp8"), Layer(torch.uint8, "fp8_e5m2")]
    assert held(*one_byte) == {"layers": {"fp8": 1, "fp8_e5m2": 1}, "bytes_per_token": 32}


def test_a_layer_that_says_fp8_and_holds_bf16_has_bf16() -> None:
    assert held(Layer(torch.bfloat16, "fp8")) == {"layers": {"bfloat16": 1}, "bytes_per_token": 32}
