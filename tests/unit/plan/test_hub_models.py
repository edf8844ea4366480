"""Well-known models of the hub: sizes that are known here without their weights."""

import pytest

from rollout_bench.plan.fit.architecture import MemoryUnknownError, architecture_from, known_config
from rollout_bench.plan.fit.memory import held_bytes

BILLIONS = {
    "Qwen/Qwen2.5-0.5B": 0.494,
    "Qwen/Qwen2.5-Math-1.5B": 1.544,
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": 1.777,
    "Qwen/Qwen2.5-3B-Instruct": 3.086,
    "Qwen/Qwen2.5-7B-Instruct": 7.616,
    "Qwen/Qwen2.5-14B": 14.77,
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-32B": 32.76,
    "Qwen/Qwen2.5-72B-Instruct": 72.71,
    "Qwen/Qwen3-0.6B": 0.596,
    "Qwen/Qwen3-1.7B": 1.721,
    "Qwen/Qwen3-4B": 4.022,
    "Qwen/Qwen3-8B": 8.191,
    "Qwen/Qwen3-14B": 14.77,
    "Qwen/Qwen3-32B": 32.76,
    "Qwen/Qwen3-30B-A3B": 30.53,
    "Qwen/Qwen3-235B-A22B": 235.1,
    "meta-llama/Llama-3.2-1B-Instruct": 1.236,
    "meta-llama/Llama-3.2-3B": 3.213,
    "meta-llama/Llama-3.1-8B-Instruct": 8.030,
    "meta-llama/Llama-3.3-70B-Instruct": 70.55,
    "mistralai/Mistral-7B-Instruct-v0.3": 7.248,
}
"""Parameters as the models' pages count their safetensors."""


@pytest.mark.parametrize("model", BILLIONS)
def test_a_well_known_model_has_its_published_number_of_parameters(model: str) -> None:
    held = held_bytes(architecture_from(known_config(model)), 16, 2) / 2
    assert held == pytest.approx(BILLIONS[model] * 1e9, rel=0.001)  # biases and norms of heads are not counted


def test_no_other_hub_model_passes_for_a_well_known_one() -> None:
    for model in ("Qwen/Qwen3-8B-FP8", "someone/Qwen3-8B", "Qwen/Qwen3-80B"):
        with pytest.raises(MemoryUnknownError, match="well-known"):
            known_config(model)
