"""What is read from a model's config, and which models get no numbers."""

import json
from pathlib import Path
from typing import Any

import pytest
from synthetic_records import make_spec

from rollout_bench.checkpoints.formats import hf_config, tensors
from rollout_bench.checkpoints.shapes import PRESETS, SyntheticModel
from rollout_bench.contracts.spec import QuantSpec, Spec
from rollout_bench.plan.fit.architecture import (
    Coding,
    MemoryUnknownError,
    architecture_from,
    cache_value_bytes,
    coding_of,
    model_config,
    model_dtype,
)
from rollout_bench.plan.fit.memory import held_bytes

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
def test_a_model_holds_the_weights_that_are_built(name: str):
    shape = SyntheticModel(preset=name).resolve()
    held = held_bytes(architecture_from(hf_config(shape, "bf16")), Coding(16, 0, 2)) / 2
    built = sum(spec.elements for spec in tensors(shape))
    assert held == pytest.approx(built, rel=0.02 if "tiny" in name else 0.001)


def test_missing_head_width_and_windows_are_derived():
    found = architecture_from(QWEN2)
    assert (found.head_dim, found.whole_layers) == (64, 24)
    assert architecture_from({**QWEN2, "use_sliding_window": True, "max_window_layers": 20}).whole_layers == 20
    mixed = ["sliding_attention"] * 18 + ["full_attention"] * 6
    gemma = architecture_from({**QWEN2, "sliding_window": 512, "use_sliding_window": None, "layer_types": mixed})
    assert gemma.whole_layers == 6


def test_only_the_text_part_of_a_multimodal_model_counts():
    assert architecture_from({"text_config": QWEN2, "vision_config": {}}) == architecture_from(QWEN2)


def test_mixtures_of_several_families_are_understood():
    mixtral = architecture_from({**QWEN2, "num_local_experts": 8, "num_experts_per_tok": 2}).matrices
    assert mixtral[-2:] == [(896, 2 * 4864, 24 * 8), (4864, 896, 24 * 8)]
    shared = architecture_from(
        {**QWEN2, "n_routed_experts": 64, "num_experts_per_tok": 6, "moe_intermediate_size": 128,
         "n_shared_experts": 2, "first_k_dense_replace": 1}
    ).matrices  # fmt: skip
    assert [(outputs // 2, number) for _, outputs, number in shared[2::2]] == [(4864, 1), (256, 23), (128, 23 * 64)]
    every_second = {**QWEN2, "num_experts": 60, "num_experts_per_tok": 4, "decoder_sparse_step": 2}
    assert architecture_from(every_second).matrices[2][2] == 12


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
    with pytest.raises(MemoryUnknownError, match=why):
        architecture_from({**QWEN2, **changed})


def test_a_model_is_looked_up_where_its_weights_are(tmp_path: Path):
    named = make_spec().model_copy(
        update={"model": make_spec().model.model_copy(update={"synthetic": None, "weights": "mine"})}
    )
    with pytest.raises(MemoryUnknownError, match="there is no"):
        model_config(named, str(tmp_path))
    for damaged in ("{", "[" * 100_000):
        (tmp_path / "config.json").write_text(damaged)
        with pytest.raises(MemoryUnknownError, match="is no JSON"):
            model_config(named, str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps(QWEN2))
    assert model_config(named, str(tmp_path)) == QWEN2


def test_a_hub_model_that_is_not_here_gets_a_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    hub = make_spec().model.model_copy(update={"synthetic": None, "weights": "hub:nobody/nothing-of-that-name"})
    named = make_spec().model_copy(update={"model": hub})
    with pytest.raises(MemoryUnknownError, match="neither in the local cache nor a well-known one"):
        model_config(named, "nobody/nothing-of-that-name")


@pytest.mark.parametrize(
    ("spec", "bits"),
    [
        (with_quant("bf16", "bfloat16"), 16),
        (with_quant("bf16", "float32", dtype="float32"), 32),
        (with_quant("bf16", "int8"), 8),
        (with_quant("bf16", "float8_e4m3fn", "float8_e4m3fnuz"), 8),
        (with_quant("compressed-tensors-w8a8", "int8"), 8),
        (with_quant("compressed-tensors-w8a16", "int32", "uint8"), 8),
        (with_quant("compressed-tensors-w4a16", "int32"), 4.125),
        (with_quant("modelslim-w8a8", "int8"), 8),
    ],
)
def test_bits_follow_from_the_quantization(spec: Spec, bits: float):
    assert coding_of(spec, {}).bits == bits


def test_a_quantization_that_does_not_say_gets_a_reason():
    with pytest.raises(MemoryUnknownError, match="q does not say how many bits"):
        coding_of(with_quant("own", "int32", "int8"), {})


def test_the_cache_has_the_models_width_unless_told_otherwise():
    asked = {"auto": 2, None: 2, "fp8": 1, "fp8_e5m2": 1, "float32": 4, "nvfp4": 0.5}
    assert {dtype: cache_value_bytes(dtype, "bfloat16") for dtype in asked} == asked


def test_32_bit_weights_are_served_with_16_as_in_vllm():
    assert model_dtype(make_spec(), {"dtype": "float32"}) == "float16"
