"""Traces of torch and torch_npu become events, steps and sums, some of them worked out on paper."""

import gzip
import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from made_traces import DECODE, PREFILL, STEP, Event, event, kernels, save, save_npu, step
from samples.profile import BF16, make_profile, make_steps

from rollout_bench.core.errors import UserError
from rollout_bench.modes.profile.record import TraceFile
from rollout_bench.modes.profile.traces.ascend import read_ascend
from rollout_bench.modes.profile.traces.categories import categorise
from rollout_bench.modes.profile.traces.events import COLUMNS, write_events
from rollout_bench.modes.profile.traces.torch import WHOLE_STEP, read_torch
from rollout_bench.modes.profile.traces.trace import read_traces
from rollout_bench.modes.profile.traces.trace_steps import phase_of, self_times, step_times

NAME = "decode.rank0.trace.json.gz"


def read(folder: Path, events: list[Any], **more: Any) -> pd.DataFrame:
    return read_torch(save(folder / NAME, events, **more), NAME, 0)


def row(frame: pd.DataFrame, name: str) -> pd.Series:
    found = frame[frame["name"] == name]
    assert len(found) == 1, f"{len(found)} rows of {name}"
    return found.iloc[0]


def cuda_step(start: float, correlation: int) -> list[Event]:
    """Make a step that launches a matrix multiplication eagerly, then a graph of two kernels, all 100 us later."""
    return [
        step(DECODE, start, 40),
        event("aten::linear", start + 2, 8, dims=[[2, 64], [96, 64]], **{"External id": correlation}),
        event("aten::mm", start + 3, 6, dims=[[2, 64], [64, 96]], types=["bf16", "bf16"]),
        event("cudaLaunchKernel", start + 5, 2, "cuda_runtime", correlation=correlation),
        event("nvjet_tst", start + 100, 5, "kernel", pid=0, tid=7, correlation=correlation),
        event("vllm::forward", start + 12, 10),
        event("cudaGraphLaunch", start + 14, 4, "cuda_runtime", correlation=correlation + 1),
        event("flash_fwd", start + 106, 7, "kernel", pid=0, tid=7, correlation=correlation + 1),
        event("marlin_gemm", start + 114, 3, "kernel", pid=0, tid=7, correlation=correlation + 1),
        event(DECODE, start + 99, 19, "gpu_user_annotation", pid=0, tid=7),
    ]


@pytest.mark.parametrize(
    ("name", "phase"),
    [
        ("execute_context_32(2048)_generation_0(0)", "prefill"),
        ("execute_context_0(0)_generation_32(32)", "decode"),
        ("execute_context_1(64)_generation_31(31)", "mixed"),
        ("execute_95_context_1(sq64sk64sqsq4096sqsk4096)_generation_31(sq31sk900sqsq31sqsk900)", "mixed"),
        ("execute_new_4_cached_0", "prefill"),
        ("execute_new_0_cached_32", "decode"),
        ("execute_context_0(0)_generation_0(0)", None),
        ("ProfilerStep#3", None),
        ("aten::mm", None),
    ],
)
def test_an_annotation_says_what_its_step_computes(name: str, phase: str | None):
    assert phase_of(name) == phase


def test_a_step_lasts_until_the_next_or_its_threads_end(tmp_path: Path):
    events = [step(PREFILL, 100, 50), step(DECODE, 200, 20), event("aten::argmax", 225, 5), event("before", 90, 2)]
    frame = read(tmp_path, events)
    steps = frame[frame["where"] == "step"]
    assert (steps["start_us"].tolist(), steps["duration_us"].tolist(), steps["phase"].tolist()) == (
        [10, 110],
        [100, 30],
        ["prefill", "decode"],
    )
    assert row(frame, "aten::argmax")[["step", "phase"]].tolist() == [1, "decode"]
    assert row(frame, "before")[["step", "phase"]].tolist() == [-1, ""]


def test_operators_on_a_cpu_engines_thread_are_device_work(tmp_path: Path):
    events = [
        step(DECODE, 0, 50),
        event("gpu_model_runner: forward", 1, 40, "user_annotation"),
        event("aten::linear", 2, 30, dims=[[2, 64], [96, 64]], types=["float", "float"]),
        event("aten::mm", 5, 20),
        event("aten::add", 5, 10, tid=2),
    ]
    frame = read(tmp_path, events)
    assert row(frame, "aten::mm")["path"] == "gpu_model_runner: forward > aten::linear"
    assert row(frame, "aten::linear")[["where", "self_us"]].tolist() == ["device", 10]
    assert (row(frame, "aten::linear")["dtypes"], row(frame, "gpu_model_runner: forward")["where"]) == (
        '["float","float"]',
        "host",
    )
    assert row(frame, "aten::add")[["where", "stream"]].tolist() == ["host", "1/2"]


def test_a_late_kernel_belongs_to_the_step_that_launched_it(tmp_path: Path):
    # The second step's annotation begins at 90, while kernels of the first run from 100 on.
    frame = read(tmp_path, cuda_step(0, 10) + cuda_step(90, 20))
    kernels = frame[(frame["where"] == "device") & (frame["name"] == "nvjet_tst")]
    assert kernels[["start_us", "step", "path", "self_us", "stream"]].to_numpy().tolist() == [
        [100, 0, "aten::linear > aten::mm", 5, "0/7"],
        [190, 1, "aten::linear > aten::mm", 5, "0/7"],
    ]
    assert (frame[frame["name"] == "aten::mm"]["where"] == "host").all()
    steps = frame[frame["where"] == "step"]
    assert steps[["start_us", "duration_us"]].to_numpy().tolist() == [[100, 90], [190, 17]]


ODD = st.fixed_dictionaries(
    {
        "ph": st.sampled_from(["X", "X", "X", "i", "M", None]),
        "cat": st.sampled_from(["cpu_op", "cpu_op", "kernel", "cuda_runtime", "user_annotation", "Trace", [1], None]),
        "name": st.sampled_from(["aten::mm", "aten::add", DECODE, "", None, 7]),
        "pid": st.sampled_from([1, "Spans"]),
        "tid": st.sampled_from([1, 2]),
        "ts": st.one_of(st.integers(0, 100), st.just(math.nan), st.just("12.5"), st.none()),
        "dur": st.one_of(st.integers(-5, 40), st.just("x"), st.none()),
        "args": st.sampled_from([{}, None, [], {"correlation": "x"}, {"correlation": 1}]),
    }
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(ODD, max_size=25), st.randoms(use_true_random=False))
@example([event("aten::mm", 12, 6), event("aten::mm", 12, 6, "cuda_runtime")], random.Random(0))
def test_neither_odd_events_nor_their_order_change_the_sums(tmp_path: Path, odd: list[Any], chance: Any):
    events = [step(DECODE, 0, 30), step(DECODE, 50, 30), *odd, "no event", None, 3]
    frame = read(tmp_path, events, packed=False)
    assert (frame["self_us"] >= 0).all()
    chance.shuffle(events)
    again = read(tmp_path, events, packed=False)
    keys = ["where", "start_us", "duration_us", "name", "stream", "self_us"]
    one, other = (f.sort_values(keys, ignore_index=True)[keys] for f in (frame, again))
    pd.testing.assert_frame_equal(one, other, atol=1e-6)


GOOD = json.dumps({"traceEvents": [step(DECODE, 0, 50), event("aten::mm", 5, 20)]}).encode()
BROWSER = {"traceEvents": [{"ph": "X", "cat": "blink", "name": "Layout", "pid": 1, "tid": 1, "ts": 1, "dur": 2}]}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is not whole JSON"),
        (b"\x00\xff\x00", "is not whole JSON"),
        (b'{"traceEvents": {}}', "without traceEvents"),
        (b'"traceEvents"', "without traceEvents"),
        (b"[]", "holds no event"),
        (GOOD[:-40], "is not whole JSON"),
        (gzip.compress(GOOD, mtime=0)[:-12], "cut off gzip"),
        (gzip.compress(GOOD, mtime=0)[:30] + b"x" * 30, "gzip"),
        (json.dumps(BROWSER).encode(), "holds no event of torch's profiler"),
        (json.dumps({"traceEvents": [event("aten::mm", 5, 20)]}).encode(), "holds no step of vLLM"),
        (b"[" * 100_000, "is not whole JSON"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_foreign_file_is_an_error_of_two_lines(tmp_path: Path, content: bytes, problem: str):
    path = tmp_path / NAME
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        read_torch(path, NAME, 0)
    assert str(path) in error.value.problem
    assert problem in error.value.problem
    assert len(str(error.value).splitlines()) == 2


def read_of_npu(folder: Path, rows: list[dict[str, str]], names: list[str] | None = None) -> pd.DataFrame:
    """Read everything that the profiler leaves of these kernels."""
    path = save_npu(folder / "worker_20261120_ascend_pt", rows, names)
    return read_ascend(path, path.name, 0, "prefill", layers=2)


WORK_US = sum(duration for _, duration in STEP)
LENGTH_US = WORK_US + 0.5 * (len(STEP) - 1)


@pytest.mark.parametrize(
    ("names", "phases", "path"),
    [
        ([PREFILL, DECODE], ["prefill", "decode"], "npu::op"),
        (None, ["prefill"] * 2, ""),
        (["unmarked"] * 2, ["prefill"] * 2, ""),
        ([WHOLE_STEP] * 2, ["prefill"] * 2, "npu::op"),
    ],
    ids=["annotated", "alone", "launched", "marked"],
)
def test_annotations_marks_or_attention_tell_the_steps(
    tmp_path: Path, names: list[str] | None, phases: list[str], path: str
):
    frame = read_of_npu(tmp_path, kernels(2), names)
    steps = frame[frame["where"] == "step"]
    assert steps["phase"].tolist() == phases
    assert steps["duration_us"].tolist() == pytest.approx([LENGTH_US + 40.5, LENGTH_US])
    attention = frame[frame["name"] == "FusedInferAttentionScore"]
    assert attention[["step", "path", "where"]].to_numpy().tolist() == [[n, path, "device"] for n in (0, 0, 1, 1)]


def test_categories_of_a_step_add_up(tmp_path: Path):
    times = step_times(categorise(read_of_npu(tmp_path, kernels(1)), "ascend"))
    seen = dict(zip(times["category"], times["us"], strict=True))
    assert seen == pytest.approx(
        {
            "linear": 20 + 12 + 24 + 16 + 15,
            "attention": 40,
            "quantize": 6,
            "norm": 16,
            "activation": 6,
            "rotary": 4,
            "kv_cache": 5,
            "sampling": 7,
            "embedding": 5,
            "host_gap": LENGTH_US - WORK_US,
        }
    )


EVENTS = [step(DECODE, 0, 50), event('odd, "name"\n', 5.1234, 20, types=["float"]), event("NA", 30, 1)]


@pytest.mark.parametrize("name", ["events.csv.gz", "events.csv"])
def test_a_table_comes_back_as_it_was_written(name: str, tmp_path: Path):
    traces = [
        TraceFile(name=f"decode.rank{rank}.trace.json.gz", phase="decode", rank=rank, source="torch", size_bytes=1)
        for rank in (0, 1)
    ]
    for trace in traces:
        save(tmp_path / trace.name, EVENTS)
    events = read_traces(tmp_path, make_profile(steps=make_steps(BF16)).model_copy(update={"traces": traces}))
    write_events(tmp_path / name, events)
    again = pd.read_csv(tmp_path / name, keep_default_na=False)
    assert again.to_dict("list") == events.round(3)[list(COLUMNS)].to_dict("list")
    assert again["rank"].unique().tolist() == [0, 1]
    assert "NA" in again["name"].tolist()


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
    assert (dict(zip(keys, times["us"], strict=True)), times.groupby("step")["us"].sum().tolist()) == (
        EXPECTED,
        [200, 40],
    )
    assert times.drop_duplicates("step")["phase"].tolist() == ["prefill", "decode"]


SPANS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 30)), max_size=40)
"""Whole numbers, so that sums are exact; so few that spans nest, overlap, touch, coincide and are empty."""


def covered(spans: list[tuple[int, int]]) -> int:
    """Whole microseconds in which a span is under way, counted one by one."""
    return len({moment for start, duration in spans for moment in range(start, start + duration)})


@given(SPANS)
def test_self_times_sum_to_the_union_and_parents_enclose_children(spans: list[tuple[int, int]]):
    start, duration = np.array(spans, dtype=float).reshape(-1, 2).T
    own, parent = self_times(start, duration)
    assert (own >= 0).all()
    assert (own <= duration).all()
    assert own.sum() == covered(spans)
    child = np.flatnonzero(parent >= 0)
    assert (start[parent[child]] <= start[child]).all()
    assert (start[parent[child]] + duration[parent[child]] >= start[child] + duration[child]).all()
    assert (parent[child] != child).all()
