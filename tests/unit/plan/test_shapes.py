"""Sizes of models are those that transformers and vLLM see (studies/shapes.py), or unknown."""

import json
from typing import Any

import pytest
import yaml
from kept import REPOSITORY, RESULTS

from rollout_bench.plan.fit.architecture import MODEL_TYPES, MemoryUnknownError, architecture_from, known_config

CONFIGS: dict[str, dict[str, Any]] = yaml.safe_load((REPOSITORY / "studies" / "shapes.yaml").read_text())
JUDGED: dict[str, dict[str, Any]] = json.loads((RESULTS / "shapes.json").read_text())["models"]


def counted() -> list[str]:
    """Return the names of models whose size this package counts."""
    found = []
    for name, config in CONFIGS.items():
        try:
            architecture_from(config)
        except MemoryUnknownError:
            continue
        found.append(name)
    return found


def test_each_kind_of_model_that_is_counted_was_judged():
    assert CONFIGS.keys() == JUDGED.keys(), "python studies/shapes.py asks anew"
    assert {CONFIGS[name]["model_type"] for name in counted()} == MODEL_TYPES.keys()


@pytest.mark.parametrize("name", counted())
def test_a_counted_model_has_the_parameters_and_the_cache_that_its_judges_see(name: str):
    own, judge = architecture_from(CONFIGS[name]), JUDGED[name]
    assert own.linear + own.plain == pytest.approx(judge["parameters"], rel=0.01)
    assert own.plain == pytest.approx(judge["ends"], rel=0.01)
    token = 2 * (own.latent or 2 * own.key_value_heads * own.head_dim)  # of bf16
    layers = {kind: (count, bytes_of_token) for kind, bytes_of_token, _, count in judge["cached"]}
    whole = "MLAAttentionSpec" if own.latent else "FullAttentionSpec"
    own_layers = {whole: (own.whole_layers, token), "SlidingWindowSpec": (own.window_layers, token)}
    assert layers == {kind: each for kind, each in own_layers.items() if each[0]}
    windows = [window for _, _, window, _ in judge["cached"] if window]
    assert windows == pytest.approx([own.window] * len(windows), abs=1)  # vLLM adds the token itself for cohere2


def test_a_rank_of_tensor_parallel_caches_all_of_a_latent_and_its_own_heads_alone():
    latent, heads = (architecture_from(CONFIGS[name]) for name in ("deepseek-ai/DeepSeek-V3", "Qwen/Qwen3-0.6B"))
    assert latent.of_rank(8) == latent
    assert (heads.of_rank(4).cached_values(1), heads.of_rank(64).cached_values(1)) == (
        heads.cached_values(1) / 4,
        heads.cached_values(1) / 8,
    )


def test_the_deepseek_of_the_hub_has_the_sizes_that_were_judged():
    assert CONFIGS["deepseek-ai/DeepSeek-V3"].items() <= known_config("deepseek-ai/DeepSeek-R1-0528").items()


@pytest.mark.parametrize(
    "name",
    [
        "meta-llama/Llama-4-Maverick, text",
        "nvidia/Nemotron-H-8B",
        "swiss-ai/Apertus-8B",
        "baidu/ERNIE-4.5-21B-A3B",
        "Qwen/Qwen1.5-MoE-A2.7B",
        "Qwen/Qwen3-Next-80B-A3B",
        "google/gemma-3n-E4B-it, text",
    ],
)
def test_a_model_of_another_kind_is_unknown_by_its_kind(name: str):
    with pytest.raises(MemoryUnknownError, match=repr(CONFIGS[name]["model_type"])):
        architecture_from(CONFIGS[name])


def test_a_pattern_of_windows_is_the_class_own_or_unknown():
    config = {key: value for key, value in CONFIGS["LGAI-EXAONE/EXAONE-4.0-32B"].items() if key != "layer_types"}
    with pytest.raises(MemoryUnknownError, match="sliding_window_pattern"):
        architecture_from(config)
    sparse = {key: value for key, value in config.items() if not key.startswith("sliding_window")}
    assert (architecture_from(sparse).whole_layers, architecture_from(sparse).window) == (16, 4096)
    assert architecture_from({**sparse, "sliding_window": None}).whole_layers == 64


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("num_key_value_heads", odd) for odd in ([8], "8", -1, True, 1.5, float("nan"))),
        *(("head_dim", odd) for odd in ([8], "8", -1, True, float("inf"))),
        *(("num_experts", odd) for odd in ([8], "8", -1, 8.0, float("nan"))),
        *(("layer_types", odd) for odd in (7, True, "full_attention", [None], ["full_attention"])),
        *(("text_config", odd) for odd in (7, "text", [8])),
    ],
)
def test_a_config_with_an_absurd_size_is_unknown_by_its_key(key: str, value: Any):
    with pytest.raises(MemoryUnknownError, match=key):
        architecture_from({**CONFIGS["Qwen/Qwen3-0.6B"], key: value})
