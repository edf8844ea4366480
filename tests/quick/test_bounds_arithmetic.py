"""Bytes and operations of a step, against sums that were made by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout_bench.analysis.bounds.architecture import Architecture, Experts, architecture_from, linear_shapes
from rollout_bench.analysis.bounds.cost import (
    Coding,
    Cost,
    cache_bytes,
    decode_batch,
    plain,
    prefill_batch,
    step_costs,
    weight_bytes,
)
from rollout_bench.analysis.bounds.limits import PEAKS, DeviceLimits, find_peak, known_peak, least, published, total
from rollout_bench.checkpoints.formats import hf_config
from rollout_bench.checkpoints.shapes import SyntheticModel
from rollout_bench.core.errors import UserError

BF16 = plain("bfloat16")
W8A8 = Coding(8, 2, "int8", "bfloat16")

TINY = Architecture(
    hidden_size=4, layers=2, heads=2, key_value_heads=1, head_dim=2, intermediate_size=6, vocabulary=64,
    tied_embeddings=True,
)  # fmt: skip


def preset(name: str) -> Architecture:
    """Return the architecture of a synthetic model's preset."""
    return architecture_from(hf_config(SyntheticModel(preset=name).resolve(), "bf16"))


def cost(costs: list[Cost], role: str) -> Cost:
    """Return the one cost of a linear role, or of a category."""
    (found,) = [one for one in costs if role in (one.role, one.category)]
    return found


def test_a_decode_step_of_qwen3_1_7b_reads_what_the_facts_say():
    costs = step_costs(preset("qwen3-1.7b"), BF16, decode_batch(256, 640))
    assert cost(costs, "attention").cache_bytes == 256 * 640 * 2 * 8 * 128 * 2 * 28  # 18.79 GB
    assert cache_bytes(costs) == pytest.approx(18.8e9, rel=0.01)
    assert weight_bytes(costs) == pytest.approx(3.44e9, rel=0.002)


def test_int8_weights_save_eight_percent_of_those_bytes_at_most():
    shape = preset("qwen3-1.7b")
    plain_bytes, int8_bytes = (
        sum(one.least_bytes for one in step_costs(shape, coding, decode_batch(256, 640))) for coding in (BF16, W8A8)
    )
    assert 1 - int8_bytes / plain_bytes == pytest.approx(0.063, abs=0.001)
    assert 1 - int8_bytes / plain_bytes < 0.08


def test_each_part_of_a_tiny_step_is_what_paper_says():
    costs = step_costs(TINY, W8A8, decode_batch(3, 5))
    qkv = cost(costs, "qkv")  # 4 -> (2 + 2 x 1) heads x 2, in 2 layers
    assert qkv.weight_bytes == 2 * (4 * 8 + 8 * 2)
    assert qkv.flops == 2 * 2 * 3 * 4 * 8
    assert qkv.activation_bytes == 2 * 3 * (4 * 1 + 8 * 2)  # int8 in, bfloat16 out
    head = cost(costs, "lm_head")
    assert (head.weight_bytes, head.flops, head.dtype) == (2 * 4 * 64, 2 * 3 * 4 * 64, "bfloat16")
    attention = cost(costs, "attention")
    assert attention.cache_bytes == 2 * 3 * 5 * 2 * (1 * 2) * 2  # layers, sequences, tokens, K and V, width, bytes
    assert attention.flops == 4 * (2 * 2) * 2 * 3 * 6  # of 5 tokens before and itself
    assert cost(costs, "kv_cache").cache_bytes == 2 * 3 * 2 * 2 * 2
    assert cost(costs, "embedding").weight_bytes == 3 * 4 * 2


def test_a_prefill_looks_at_each_earlier_token_once_and_samples_one():
    batch = prefill_batch(2, 4, cached=10)
    assert (batch.tokens, batch.cached, batch.pairs, batch.sampled) == (8, 20, 2 * (4 * 10 + 1 + 2 + 3 + 4), 2)
    costs = step_costs(TINY, BF16, batch)
    assert cost(costs, "lm_head").flops == 2 * 2 * 4 * 64
    assert cost(costs, "down").flops == 2 * 2 * 8 * 6 * 4


def test_a_cache_of_one_byte_values_has_half_the_bytes():
    batch = decode_batch(8, 100)
    half = cache_bytes(step_costs(TINY, BF16, batch, cache_value_bytes=1))
    assert half == cache_bytes(step_costs(TINY, BF16, batch)) / 2


def test_a_sliding_window_ends_what_is_read_and_computed():
    sliding = Architecture(**{**TINY.__dict__, "window": 10, "sliding_layers": 1})
    full, cut = (cost(step_costs(shape, BF16, decode_batch(3, 100)), "attention") for shape in (TINY, sliding))
    assert cut.cache_bytes == pytest.approx(full.cache_bytes * (100 + 10) / 200)
    assert cut.flops == pytest.approx(full.flops * (101 + 10) / 202)


@pytest.mark.parametrize(("tokens", "hit"), [(1, 8.0), (2, 128 * (1 - (120 / 128) ** 2)), (10_000, 128.0)])
def test_experts_are_read_as_often_as_tokens_are_expected_to_hit_them(tokens: int, hit: float):
    assert Experts(128, 8, 768, 48).hit(tokens) == pytest.approx(hit)


def test_a_mixture_reads_the_hit_experts_and_computes_with_the_chosen():
    shape = preset("qwen3-30b-a3b")
    assert shape.experts is not None
    (one,) = {s.layers for s in linear_shapes(shape) if s.role == "experts"}
    assert one == 48 * 128
    costs = step_costs(shape, BF16, decode_batch(1, 0))
    experts = [c for c in costs if c.role == "experts"]
    matrices = 3 * 2048 * 768
    assert sum(c.weight_bytes for c in experts) == pytest.approx(48 * 8 * matrices * 2)
    assert sum(c.flops for c in experts) == pytest.approx(48 * 8 * matrices * 2)
    assert weight_bytes(step_costs(shape, BF16, decode_batch(10_000, 0))) == pytest.approx(60.4e9, rel=0.01)


@given(tokens=st.integers(1, 10_000), more=st.integers(1, 1000))
def test_more_tokens_never_hit_fewer_experts_nor_more_than_there_are(tokens: int, more: int):
    experts = Experts(64, 4, 256, 1)
    assert experts.hit(tokens) >= 4 - 1e-9
    assert experts.hit(tokens) <= experts.hit(tokens + more) <= 64


@given(sequences=st.integers(1, 512), context=st.integers(0, 4096), ranks=st.sampled_from([1, 2, 4, 8]))
def test_tensor_parallel_ranks_share_linear_layers_and_cache(sequences: int, context: int, ranks: int):
    shape, batch = preset("qwen3-1.7b"), decode_batch(sequences, context)
    whole, part = step_costs(shape, BF16, batch), step_costs(shape, BF16, batch, ranks=ranks)
    for role in ("qkv", "o", "gate_up", "down", "lm_head", "attention"):
        assert cost(part, role).flops == pytest.approx(cost(whole, role).flops / ranks)
        assert cost(part, role).least_bytes == pytest.approx(cost(whole, role).least_bytes / ranks)


def test_more_ranks_than_key_value_heads_each_keep_one():
    shape = preset("qwen3-30b-a3b")  # 4 key and value heads
    batch = decode_batch(8, 100)
    four, eight = (cache_bytes(step_costs(shape, BF16, batch, ranks=ranks)) for ranks in (4, 8))
    assert four == eight


def test_the_longer_of_memory_and_computing_is_the_bound():
    limits = DeviceLimits("here", "measured", 100.0, {"bfloat16": 10.0})
    costs = [Cost("linear", "o", 200, 100, 1e9, 20, "bfloat16"), Cost("linear", "o", 0, 0, 0, 5, "int8")]
    found = least(costs, limits)
    assert (found.memory_s, found.compute_s, found.seconds, found.limited_by) == (3.0, 2.0, 3.0, "memory")
    assert found.unknown == {"int8"}
    busier = least([Cost("linear", "o", 200, 100, 0, 50, "bfloat16")], limits)
    assert (busier.seconds, busier.limited_by) == (5.0, "compute")
    several = total([(2, found), (1, busier)])
    assert (several.seconds, several.memory_s, several.limited_by) == (11.0, 6.0, "memory")


@pytest.mark.parametrize(
    ("driver", "name"),
    [
        ("NVIDIA H200", "H200"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA H100 NVL", "H100 NVL"),
        ("NVIDIA A100-SXM4-40GB", "A100 40GB"),
        ("NVIDIA A100-SXM4-80GB", "A100 80GB"),
        ("NVIDIA A100 80GB PCIe", "A100 80GB PCIe"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("NVIDIA B200", "B200"),
        ("Ascend910_9392", "Ascend 910C die"),
        ("NVIDIA GH200 480GB", None),
        ("NVIDIA L40", None),
        ("Ascend910B3", None),
    ],
)
def test_devices_are_known_by_the_names_that_drivers_give_them(driver: str, name: str | None):
    found = find_peak(driver)
    assert (found.name if found else None) == name


def test_every_peak_is_found_by_its_own_name():
    assert [known_peak(peak.name).name for peak in PEAKS] == [peak.name for peak in PEAKS]
    assert published(known_peak("h200")).bytes_per_s == 4.8e12


def test_an_unknown_device_is_told_with_the_nearest_name():
    with pytest.raises(UserError, match=r"device 'L40': its limits are not known\n.*did you mean 'L4"):
        known_peak("L40")
