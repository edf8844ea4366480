"""What operators and kernels are for: the rules, what stands around plain operators."""

from typing import Any

import pandas as pd
import pytest

from rollout_bench.modes.profile.traces.categories import categorise
from rollout_bench.modes.profile.traces.events import COLUMNS
from rollout_bench.modes.profile.traces.trace_steps import step_times


def table(rows: list[dict[str, Any]], steps: int = 1) -> pd.DataFrame:
    """Return an events table of device rows, 10 us each, one after the other unless they say otherwise."""
    filled: list[dict[str, Any]] = [
        {
            "where": "step",
            "name": f"step {n}",
            "step": n,
            "start_us": 1000.0 * n,
            "duration_us": 1000.0,
            "self_us": 1000.0,
        }
        for n in range(steps)
    ]
    for i, row in enumerate(rows):
        filled.append({"where": "device", "step": 0, "start_us": 10.0 * i, "duration_us": 10.0, "self_us": 10.0} | row)
    base = {"trace": "t", "phase": "decode", "rank": 0, "path": "", "stream": "s", "dtypes": ""}
    return pd.DataFrame([base | row for row in filled])[list(COLUMNS)]


def of(names: list[str], platform: Any = "cuda", **more: Any) -> list[str]:
    frame = categorise(table([{"name": name} | more for name in names]), platform=platform)
    return [str(c) for c in frame[frame["where"] == "device"]["category"]]


CUDA = {
    "linear": [
        "nvjet_tst_192x192_64x4_1x2_h_bz_coopB_TNT",
        "sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64",
        "void cutlass::device_kernel<vllm::enable_sm90_or_later<cutlass::gemm::kernel::GemmUniversal<int8_t>>>",
        "void marlin::Marlin<__nv_bfloat16, 1125899906909960l, 256, 1, 8, 8, false, 4, 8, false>",
        "void machete::MacheteKernelTemplate<cutlass::bfloat16_t>",
        "ampere_bf16_s16816gemm_bf16_128x64_ldg8_f2f_stages_64x3_tn",
        "void gemv2T_kernel_val<int, int, __nv_bfloat16>",
        "void cublasLt::splitKreduce_kernel<32, 16, int, float, __nv_bfloat16>",
        "fused_moe_kernel",
    ],
    "attention": [
        "void cutlass::device_kernel<flash::enable_sm90<flash::FlashAttnFwdSm90<flash::CollectiveMainloopFwd>>>",
        "void flash::flash_fwd_splitkv_combine_kernel<Flash_fwd_kernel_traits<128>>",
        "void flash::prepare_varlen_num_blocks_kernel<1, true>",
        "void flashinfer::BatchDecodeWithPagedKVCacheKernel<(flashinfer::PosEncodingMode)0>",
        "kernel_unified_attention_2d",
    ],
    "kv_cache": ["void vllm::reshape_and_cache_flash_kernel<__nv_bfloat16>", "_compute_slot_mapping_kernel"],
    "rotary": ["void vllm::rotary_embedding_kernel<c10::BFloat16, true>", "triton_poi_fused_cat_mul_split_sub_3"],
    "norm": [
        "void vllm::rms_norm_kernel<c10::BFloat16>",
        "void vllm::fused_add_rms_norm_kernel<c10::BFloat16, 8>",
        "triton_red_fused__to_copy_add_mean_mul_pow_rsqrt_0",
    ],
    "activation": ["void vllm::act_and_mul_kernel<c10::BFloat16>", "triton_poi_fused_mul_silu_slice_1"],
    "quantize": [
        "void vllm::dynamic_scaled_int8_quant_kernel<c10::BFloat16, float>",
        "void vllm::dynamic_per_token_scaled_fp8_quant_kernel_strided<c10::BFloat16>",
        "void vllm::scaled_fp8_quant_kernel_strided<c10::BFloat16>",
    ],
    "adapter": ["_lora_shrink_kernel", "_lora_expand_kernel", "_lora_shrink_kernel_fp8", "vllm::lora_expand"],
    "communication": ["ncclDevKernel_AllReduce_Sum_bf16_RING_LL", "void vllm::cross_device_reduce_1stage<half, 2>"],
    "sampling": [
        "_gumbel_sample_kernel",
        "void at::native::sbtopk::gatherTopK<float, unsigned int, 2>",
        "void at::native::reduce_kernel<512, 1, at::native::ReduceOp<float, at::native::ArgMaxOps<float>>>",
        "void at::native::(anonymous namespace)::cunn_SoftMaxForward<8, float, float>",
        "void at_cuda_detail::cub::DeviceRadixSortOnesweepKernel<float>",
    ],
    "memory_copy": ["Memcpy HtoD (Pinned -> Device)", "Memset (Device)", "void at::native::direct_copy_kernel_cuda"],
    "embedding": ["void at::native::(anonymous namespace)::indexSelectLargeIndex<c10::BFloat16, long>"],
    "other": ["void some::thing_kernel<4>"],
}

ASCEND = {
    "linear": ["MatMulV2", "MatMulV3", "QuantBatchMatmulV3", "WeightQuantBatchMatmulV2", "GroupedMatmul"],
    "quantize": ["DynamicQuant", "AscendQuantV2"],
    "adapter": ["sgmv_expand", "bgmv_shrink"],
    "attention": ["FusedInferAttentionScore", "PagedAttentionMaskNdKernel", "FlashAttentionScore"],
    "norm": ["AddRmsNorm", "AddRmsNormBias", "RmsNorm"],
    "activation": ["SwiGlu"],
    "rotary": ["RotaryMul", "ApplyRotaryPosEmb"],
    "kv_cache": ["ScatterPaKvCache", "ReshapeAndCacheNdKernel"],
    "communication": ["HcomAllReduce", "hcom_allReduce_", "hcom_allGather_"],
    "sampling": ["ArgMaxV2", "TopKV2", "SoftmaxV2"],
    "embedding": ["GatherV2", "GatherV3"],
    "memory_copy": ["Cast", "TensorMove", "Slice", "ConcatD"],
    "other": ["SomeThing"],
}

CPU = {
    "linear": ["_C::onednn_mm", "_C::onednn_scaled_mm", "aten::addmm", "aten::_weight_int8pack_mm", "aten::linear"],
    "quantize": ["_C::dynamic_scaled_int8_quant", "_C::static_scaled_int8_quant"],
    "adapter": ["aten::einsum"],
    "attention": ["_C::cpu_attention_with_kv_cache", "_C::get_scheduler_metadata"],
    "norm": ["_C::rms_norm", "_C::fused_add_rms_norm"],
    "activation": ["aten::silu", "_C::silu_and_mul"],
    "rotary": ["_C::rotary_embedding"],
    "kv_cache": ["_C::cpu_attn_reshape_and_cache", "_C::compute_slot_mapping_kernel_impl"],
    "sampling": ["_C::fused_gumbel_argmax", "aten::argmax", "aten::topk"],
    "embedding": ["aten::embedding"],
    "memory_copy": ["aten::index", "aten::cat"],
    "other": ["_C::some_thing", "aten::fft_fft"],
}


@pytest.mark.parametrize(
    ("platform", "category", "name"),
    [
        (platform, category, name)
        for platform, names in (("cpu", CPU), ("cuda", CUDA), ("ascend", ASCEND))
        for category, some in names.items()
        for name in some
    ],
)
def test_a_name_tells_the_category(platform: str, category: str, name: str):
    assert of([name], platform) == [category]


def test_what_an_operator_calls_is_for_the_same():
    assert of(["elementwise"], path="vllm::forward > aten::silu") == ["activation"]


def test_plain_operators_on_a_cpu_take_their_neighbours_category():
    names = {
        "aten::copy_": "host_gap",  # before the embedding: inputs are made ready
        "aten::embedding": "embedding",
        "aten::pow": "norm",  # a run with the reciprocal of a root
        "aten::rsqrt": "norm",
        "aten::mul": "norm",
        "_C::onednn_mm": "linear",
        "aten::view": "attention",  # before attention, for attention
        "_C::cpu_attention": "attention",
        "aten::silu": "activation",
        "aten::mul ": "activation",  # after an activation
        "aten::mm": "linear",
        "aten::div_": "sampling",  # after the last linear layer
        "aten::index": "memory_copy",
        "aten::sub": "sampling",
    }
    assert of([name.strip() for name in names], "cpu") == list(names.values())
    assert of(["_C::rms_norm", "aten::add"], "cpu") == ["norm", "other"]  # with nothing behind it


@pytest.mark.parametrize(
    ("quantize", "first", "category"),
    [(True, "aten::mul", "quantize"), (True, "aten::add", "norm"), (False, "aten::mul", "norm")],
)
def test_the_scale_of_a_product_counts_as_quantize(quantize: bool, first: str, category: str):
    before = ["_C::dynamic_scaled_int8_quant"] if quantize else []
    names = ["aten::mm", "aten::view", first, "aten::view", "aten::pow", "aten::rsqrt", "aten::mul", "_C::onednn_mm"]
    found = of([*before, *names], "cpu")[len(before) :]
    assert (found[2], found[4:7]) == (category, ["norm"] * 3)


def test_copies_of_int8_weights_are_dequantization():
    rows = [{"name": "aten::copy_", "dtypes": '["c10::BFloat16","signed char",""]'}, {"name": "aten::mm"}]
    frame = categorise(table(rows), platform="cpu")
    assert frame["category"].tolist()[1:] == ["quantize", "linear"]


def test_rows_of_a_step_sum_to_its_duration_despite_overlaps():
    rows = [
        {"name": "nvjet", "start_us": 0.0, "duration_us": 400.0},
        {"name": "ncclDevKernel", "start_us": 300.0, "duration_us": 300.0, "stream": "other"},
        {"name": "flash_fwd", "start_us": 900.0, "duration_us": 300.0},
    ]
    times = step_times(categorise(table(rows), platform="cuda"))
    # 0..300 linear, 300..600 communication, which began last, 600..900 nothing, 900..1000 attention
    assert dict(zip(times["category"], times["us"], strict=True)) == {
        "linear": 300,
        "communication": 300,
        "host_gap": 300,
        "attention": 100,
    }
