"""Shapes of synthetic checkpoints fit together and count right; their int8 values are the rounding of their weights."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rollout_bench.checkpoints.formats import GROUP, Storage, check_format
from rollout_bench.checkpoints.shapes import ResolvedShape, SyntheticModel
from rollout_bench.checkpoints.weights import pack, rounded


def shape_of(preset: str, seed: int = 0, **sizes: int | float) -> ResolvedShape:
    return SyntheticModel(preset=preset, shape=sizes, seed=seed).resolve()


def test_other_weights_of_a_model_take_the_next_seed() -> None:
    shape = shape_of(preset="qwen3-tiny", seed=(1 << 63) - 1)
    other = shape.other_weights()
    assert other.model_dump() == {**shape.model_dump(), "seed": 0, "norm": 1.25}
    assert ResolvedShape(**other.model_dump()) == other


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({}, "preset"),
        ({"preset": "qwen3-tniy"}, "qwen3-tiny"),
        ({"preset": "qwen3-tiny", "shape": {"architecture": "openpangu"}}, "architecture"),
        ({"preset": "qwen3-tiny", "shape": {"hidden_size": -256}}, "hidden_size"),
        ({"preset": "qwen3-tiny", "shape": {"hidden_size": 250}}, "hidden_size"),
        ({"preset": "qwen3-tiny", "shape": {"hidden_size": 10**12}}, "hidden_size"),
        ({"preset": "qwen3-tiny", "shape": {"intermediate_size": 100}}, "intermediate_size"),
        ({"preset": "qwen3-tiny", "shape": {"num_hidden_layers": 0}}, "num_hidden_layers"),
        ({"preset": "qwen3-tiny", "shape": {"num_key_value_heads": 3}}, "num_key_value_heads"),
        ({"preset": "qwen3-tiny", "shape": {"num_experts": 4}}, "num_experts"),
        ({"preset": "qwen3-tiny", "shape": {"rope_theta": "inf"}}, "rope_theta"),
        ({"preset": "qwen3-tiny", "seed": -1}, "seed"),
        ({"preset": "qwen3-tiny", "shape": {"hiden_size": 256}}, "hiden_size"),
        ({"preset": "qwen2-tiny", "shape": {"head_dim": 32}}, "head_dim"),
        ({"preset": "qwen3-moe-tiny", "shape": {"num_experts_per_tok": 9}}, "num_experts_per_tok"),
        ({"preset": "qwen3-moe-tiny", "shape": {"moe_intermediate_size": 8}}, "moe_intermediate_size"),
    ],
)
def test_a_shape_that_does_not_fit_is_refused_by_name(fields: dict[str, object], named: str) -> None:
    with pytest.raises(ValidationError) as caught:
        SyntheticModel.model_validate(fields)
    error = caught.value.errors(include_url=False)[0]
    told = f"{error['loc']} {error['msg']}"
    assert named in told
    assert "\n" not in told


def test_modelslim_w8a16_is_refused_for_experts() -> None:
    with pytest.raises(ValueError, match="modelslim-w8a16 does not exist for MoE"):
        check_format(shape_of(preset="qwen3-moe-tiny"), "modelslim-w8a16")


matrices = st.builds(
    lambda rows, words, seed, exponent: (
        torch.randn(rows, 4 * words, generator=torch.Generator().manual_seed(seed)) * 2.0**exponent
    ).to(torch.bfloat16),
    st.integers(1, 8),
    st.integers(1, 16),
    st.integers(0, 2**32),
    st.integers(-20, 10),
)


@given(weight=matrices, scale_dtype=st.sampled_from(["bfloat16", "float32"]))
def test_int8_rounding_is_within_half_a_step_of_every_weight(weight: torch.Tensor, scale_dtype: str) -> None:
    values, scale = rounded(weight, Storage("int-quantized", scale_dtype=scale_dtype))
    assert (values.dtype, scale.dtype, scale.shape) == (torch.int8, getattr(torch, scale_dtype), (len(weight), 1))
    error = (values.float() * scale.float() - weight.float()).abs()
    assert bool((error <= 0.505 * scale.float()).all())
    assert int(values.abs().max()) >= 126


@given(weight=matrices, groups=st.integers(1, 3))
def test_groups_of_128_inputs_have_their_own_4_bit_scale(weight: torch.Tensor, groups: int) -> None:
    wide = weight.repeat(1, GROUP)[:, :GROUP].repeat(1, groups) * torch.tensor(
        [2.0**-group for group in range(groups) for _ in range(GROUP)], dtype=torch.bfloat16
    )
    values, scale = rounded(wide, Storage("pack-quantized", bits=4, levels=7.5, group=GROUP))
    assert (values.dtype, scale.dtype, scale.shape) == (torch.int8, torch.bfloat16, (len(weight), groups))
    assert int(values.min()) >= -8
    assert int(values.max()) <= 7
    steps = scale.float().repeat_interleave(GROUP, dim=1)
    error = (values.float() * steps - wide.float()).abs()
    largest = wide.float() > 7.4 * steps  # 7 is the largest value, half a step below the largest weight
    assert bool((error <= torch.where(largest, 0.54, 0.505) * steps).all())
    assert int(values.abs().view(len(weight), groups, GROUP).amax(dim=2).min()) >= 7


def test_4_bits_refuse_inputs_that_make_no_whole_groups() -> None:
    narrow = shape_of(preset="qwen3-tiny", intermediate_size=192)
    check_format(narrow, "compressed-tensors-w8a16")
    with pytest.raises(ValueError, match=r"mlp.down_proj.weight has 192, no multiple of 128"):
        check_format(narrow, "compressed-tensors-w4a16")


@given(values=st.lists(st.integers(-8, 7), min_size=16, max_size=16))
def test_packing_puts_eight_values_of_4_bits_into_a_word(values: list[int]) -> None:
    words = pack(torch.tensor([values], dtype=torch.int8), 4)
    assert (words.dtype, words.shape) == (torch.int32, (1, 2))
    assert [((int(words[0, i // 8]) >> (4 * (i % 8))) & 0xF) - 8 for i in range(16)] == values
