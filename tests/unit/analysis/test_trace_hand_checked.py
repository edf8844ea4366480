"""A trace of two steps whose categories, self times and sums were worked out on paper."""

import pandas as pd
import pytest
from made_traces import DECODE, PREFILL, Event, event, save, step

from rollout_bench.modes.profile.traces.categories import categorise
from rollout_bench.modes.profile.traces.torch import read_torch
from rollout_bench.modes.profile.traces.trace_steps import step_times

# A prefill step of 8 tokens, 1000..1200 us, in w8a8. Each line: begin, duration, what is enclosed -> self time.
FIRST: list[Event] = [
    step(PREFILL, 1000, 150),
    event("aten::slice", 1000, 4),  #                                       4, before the embedding: host_gap
    event("aten::as_strided", 1001, 2),  #                                  2 of those 4: slice keeps 2, both host_gap
    event("_C::compute_slot_mapping_kernel_impl", 1004, 3),  #              3 kv_cache
    # 1007..1010: nothing runs                                              3 gap
    event("aten::embedding", 1010, 10, dims=[[512, 64], [8]]),  #           10 less 7 -> 3 embedding
    event("aten::index_select", 1012, 7),  #                                7 embedding, as what calls it
    event("aten::pow", 1020, 2),  #                                         2 norm
    event("aten::mean", 1022, 5),  #                                        5 less 4 -> 1 norm
    event("aten::sum", 1022, 4),  #                                         4 norm
    event("aten::rsqrt", 1027, 1),  #                                       1 norm
    event("aten::mul", 1028, 2),  #                                         2 norm
    event("_C::dynamic_scaled_int8_quant", 1030, 6),  #                     6 quantize
    event("_C::onednn_scaled_mm", 1036, 20, dims=[[8, 96], [8, 64], [8, 1], [], [1, 96]]),  # 20 less 2 -> 18 linear qkv
    event("aten::item", 1037, 2),  #                                        2 linear qkv
    event("aten::split_with_sizes", 1056, 2),  #                            2, in front of rotary: rotary
    event("_C::rotary_embedding", 1058, 4),  #                              4 rotary
    event("_C::cpu_attn_reshape_and_cache", 1062, 5),  #                    5 kv_cache
    event("vllm::unified_attention_with_output", 1067, 15),  #              15 less 12 -> 3 attention
    event("_C::cpu_attention_with_kv_cache", 1069, 12),  #                  12 attention
    event("_C::dynamic_scaled_int8_quant", 1082, 3),  #                     3 quantize
    event("_C::onednn_scaled_mm", 1085, 10, dims=[[8, 64], [8, 64], [8, 1], [], [1, 64]]),  # 10 linear o
    event("_C::onednn_scaled_mm", 1095, 25, dims=[[8, 256], [8, 64], [8, 1], [], [1, 256]]),  # 25 linear gate_up
    event("aten::silu", 1120, 4),  #                                        4 activation
    event("aten::mul", 1124, 2),  #                                         2 activation
    event("_C::onednn_scaled_mm", 1126, 12, dims=[[8, 64], [8, 128], [8, 1], [], [1, 64]]),  # 12 linear down
    event("_C::some_thing", 1138, 2),  #                                    2 other
    event("aten::index", 1140, 1),  #                                       1 memory_copy
    event("_C::onednn_mm", 1141, 8, dims=[[2, 512], [2, 64], [], []]),  #   8 linear lm_head: of two sequences only
    # the annotation ends at 1150; sampling comes after it
    event("aten::div_", 1155, 5),  #                                        5 sampling
    event("_C::fused_gumbel_argmax", 1160, 9),  #                           9 sampling
    event("aten::add", 1100, 50, tid=2),  #                                 another thread: not the device's
    # 1169..1200: nothing runs                                              31 gap
]

# A decode step of 2 tokens, from 1200 us until its thread ends at 1240; the annotation ends at 1230.
SECOND: list[Event] = [
    step(DECODE, 1200, 30),
    event("aten::embedding", 1202, 3),  #                                   3 embedding
    event("_C::onednn_mm", 1205, 6, dims=[[2, 96], [2, 64], [], []]),  #    6 linear qkv
    event("_C::onednn_mm", 1211, 10, dims=[[2, 512], [2, 64], [], []]),  #  10 linear lm_head
    event("aten::argmax", 1235, 5),  #                                      5 sampling
]

# 200 us: operators cover 1000..1007, 1010..1149 (where lm_head ends) and 1155..1169, 7 + 139 + 14 = 160; nothing runs
# for 3 + 6 + 31 = 40. With the inputs' 4 us host_gap has 44, and all others 156.
EXPECTED = {
    (0, "host_gap"): 4 + 40,
    (0, "kv_cache"): 3 + 5,
    (0, "embedding"): 3 + 7,
    (0, "norm"): 2 + 1 + 4 + 1 + 2,
    (0, "quantize"): 6 + 3,
    (0, "linear"): 18 + 2 + 10 + 25 + 12 + 8,
    (0, "rotary"): 2 + 4,
    (0, "attention"): 3 + 12,
    (0, "activation"): 4 + 2,
    (0, "other"): 2,
    (0, "memory_copy"): 1,
    (0, "sampling"): 5 + 9,
    # 40 us: 3 + 6 + 10 + 5 = 24 by operators, 2 before and 14 behind the matrix multiplications without any
    (1, "embedding"): 3,
    (1, "linear"): 6 + 10,
    (1, "sampling"): 5,
    (1, "host_gap"): 2 + 14,
}


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    path = save(tmp_path_factory.mktemp("traces") / "both.rank0.trace.json.gz", [*SECOND, *reversed(FIRST)])
    return categorise(read_torch(path, path.name, 0), "cpu")


def test_the_times_of_each_step_are_those_on_paper(events: pd.DataFrame):
    times = step_times(events)
    keys = zip(times["step"], times["category"], strict=True)
    assert dict(zip(keys, times["us"], strict=True)) == EXPECTED
    assert times.groupby("step")["us"].sum().tolist() == [200, 40]
    assert times.drop_duplicates("step")["phase"].tolist() == ["prefill", "decode"]


def test_every_operator_has_the_self_time_on_paper(events: pd.DataFrame):
    own = events[events["where"] == "device"].groupby("name", observed=True)["self_us"].agg(list)
    assert own["aten::slice"] == [2]
    assert own["aten::mean"] == [1]
    assert own["vllm::unified_attention_with_output"] == [3]
    assert own["_C::onednn_scaled_mm"] == [18, 10, 25, 12]
