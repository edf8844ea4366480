"""What is read from a model's config, and which models get no numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from synthetic_records import make_spec

from rollout_bench.checkpoints.formats import hf_config, tensors
from rollout_bench.checkpoints.shapes import PRESETS, SyntheticModel
from rollout_bench.contracts.spec import QuantSpec, Spec
from rollout_bench.plan.fit.architecture import (
    Experts,
    UnknownArchitectureError,
    architecture_from,
    cache_value_bytes,
    coding_of,
    linear_shapes,
    model_config,
    plain,
)

QWEN2: dict[str, Any] = {
    "model_type": "qwen2", "hidden_size": 896, "num_hidden_layers": 24, "num_attention_heads": 14,
    "num_key_value_heads": 2, "intermediate_size": 4864, "vocab_size": 151936, "tie_word_embeddings": True,
    "torch_dtype": "bfloat16", "sliding_window": 32768, "use_sliding_window": False,
}  # fmt: skip


def with_quant(weights_format: str, *dtypes: str, **args: Any) -> Spec:
    """Return a spec with another way to store weights."""
    spec = make_spec(args=args)
    quant = QuantSpec(name="q", weights_format=weights_format, linear_dtypes=dtypes, linear_method="")
    return spec.model_copy(update={"quant": quant})


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_linear_layers_hold_all_but_norms_embedding_and_biases(name: str):
    shape = SyntheticModel(preset=name).resolve()
    found = architecture_from(hf_config(shape, "bf16"))
    inside = sum(s.in_features * s.out_features * s.layers for s in linear_shapes(found) if s.role != "lm_head")
    outside = shape.vocab_size * shape.hidden_size * (1 if shape.tie_word_embeddings else 2)
    assert inside + outside == pytest.approx(
        sum(spec.elements for spec in tensors(shape)), rel=0.01 if "tiny" in name else 0.001
    )


def test_the_demo_model_has_the_fused_layers_of_its_trace():
    shapes = linear_shapes(architecture_from(hf_config(SyntheticModel(preset="qwen3-90m").resolve(), "bf16")))
    assert {(s.role, s.in_features, s.out_features, s.layers) for s in shapes} == {
        ("qkv", 768, 1280, 12),
        ("o", 768, 768, 12),
        ("gate_up", 768, 4096, 12),
        ("down", 2048, 768, 12),
        ("lm_head", 768, 16384, 1),
    }


def test_missing_head_width_and_windows_are_derived():
    found = architecture_from(QWEN2)
    assert (found.head_dim, found.sliding_layers, found.tied_embeddings) == (64, 0, True)
    sliding = architecture_from({**QWEN2, "use_sliding_window": True, "max_window_layers": 20})
    assert sliding.sliding_layers == 4
    mixed = ["sliding_attention"] * 18 + ["full_attention"] * 6
    gemma = architecture_from({**QWEN2, "sliding_window": 512, "use_sliding_window": None, "layer_types": mixed})
    assert gemma.sliding_layers == 18


def test_only_the_text_part_of_a_multimodal_model_counts():
    assert architecture_from({"text_config": QWEN2, "vision_config": {}}) == architecture_from(QWEN2)


def test_mixtures_of_several_families_are_understood():
    mixtral = architecture_from({**QWEN2, "num_local_experts": 8, "num_experts_per_tok": 2})
    assert mixtral.experts == Experts(8, 4864, 24)
    shared = architecture_from(
        {**QWEN2, "n_routed_experts": 64, "num_experts_per_tok": 6, "moe_intermediate_size": 128,
         "n_shared_experts": 2, "first_k_dense_replace": 1}
    )  # fmt: skip
    assert shared.experts == Experts(64, 128, 23, shared_intermediate_size=256)
    assert shared.dense_layers == 1
    every_second = {**QWEN2, "num_experts": 60, "num_experts_per_tok": 4, "decoder_sparse_step": 2}
    assert architecture_from(every_second).dense_layers == 12


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"kv_lora_rank": 512}, "latent attention"),
        ({"layer_types": ["linear_attention", "full_attention"]}, "linear_attention"),
        ({"mamba_d_state": 16}, "state-space"),
        ({"is_encoder_decoder": True}, "encoders"),
        ({"model_type": "gpt_neox"}, "gpt_neox"),
        ({"hidden_size": None}, "hidden_size"),
    ],
)
def test_models_whose_work_is_another_sum_get_a_reason(changed: dict[str, Any], why: str):
    with pytest.raises(UnknownArchitectureError, match=why):
        architecture_from({**QWEN2, **changed})


def test_a_model_is_looked_up_where_its_weights_are(tmp_path: Path):
    named = make_spec().model_copy(
        update={"model": make_spec().model.model_copy(update={"synthetic": None, "weights": "mine"})}
    )
    with pytest.raises(UnknownArchitectureError, match="there is no"):
        model_config(named, str(tmp_path))
    for damaged in ("{", "[" * 100_000):
        (tmp_path / "config.json").write_text(damaged)
        with pytest.raises(UnknownArchitectureError, match="is no JSON"):
            model_config(named, str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps(QWEN2))
    assert model_config(named, str(tmp_path)) == QWEN2


def test_a_hub_model_that_is_not_here_gets_a_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    hub = make_spec().model.model_copy(update={"synthetic": None, "weights": "hub:nobody/nothing-of-that-name"})
    named = make_spec().model_copy(update={"model": hub})
    with pytest.raises(UnknownArchitectureError, match="neither in the local cache nor a well-known one"):
        model_config(named, "nobody/nothing-of-that-name")


@pytest.mark.parametrize(
    ("spec", "config", "bits"),
    [
        (with_quant("bf16", "bfloat16"), {}, 16),
        (with_quant("bf16", "float32", dtype="float32"), {}, 32),
        (with_quant("bf16", "int8"), {}, 8),
        (with_quant("bf16", "float8_e4m3fn", "float8_e4m3fnuz"), {}, 8),
        (with_quant("compressed-tensors-w8a8", "int8"), {}, 8),
        (with_quant("compressed-tensors-w8a16", "int32", "uint8"), {}, 8),
        (with_quant("compressed-tensors-w4a16", "int32"), {}, 4.125),
        (with_quant("modelslim-w8a8", "int8"), {}, 8),
        (with_quant("own", "int32"), {"quant_method": "gptq", "bits": 4, "group_size": 128}, 4.125),
        (with_quant("own"), {"quant_method": "fp8"}, 8),
        (
            with_quant("own"),
            {"config_groups": {"g": {"weights": {"num_bits": 4}, "input_activations": {"num_bits": 8}}}},
            4,
        ),
    ],
)
def test_bits_follow_from_the_quantization(spec: Spec, config: dict[str, Any], bits: float):
    found = coding_of(spec, {"quantization_config": config} if config else {})
    assert found.bits == bits


def test_a_quantization_that_does_not_say_gets_a_reason():
    with pytest.raises(UnknownArchitectureError, match="q does not say how many bits"):
        coding_of(with_quant("own", "int32", "int8"), {})


def test_the_cache_has_the_models_width_unless_told_otherwise():
    asked = {"auto": 2, None: 2, "fp8": 1, "fp8_e5m2": 1, "float32": 4, "nvfp4": 0.5}
    assert {dtype: cache_value_bytes(dtype, "bfloat16") for dtype in asked} == asked


def test_32_bit_weights_are_served_with_16_as_in_vllm():
    assert coding_of(with_quant("own"), {"dtype": "float32", "quantization_config": {"quant_method": "fp8"}}) == (
        plain("float16").__class__(8, 0, "float16")
    )
