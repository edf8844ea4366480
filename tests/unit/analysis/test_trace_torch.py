"""Traces of torch's profiler to events: steps, paths, what launched a kernel, and files that are no such trace."""

import gzip
import json
import math
import random
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from made_traces import DECODE, PREFILL, Event, event, save, step

from rollout_bench.core.errors import UserError
from rollout_bench.modes.profile.traces.torch import read_torch
from rollout_bench.modes.profile.traces.trace_steps import phase_of

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
    assert steps["start_us"].tolist() == [10, 110]
    assert steps["duration_us"].tolist() == [100, 30]
    assert steps["phase"].tolist() == ["prefill", "decode"]
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
    assert row(frame, "aten::linear")["dtypes"] == '["float","float"]'
    assert row(frame, "gpu_model_runner: forward")["where"] == "host"
    assert row(frame, "aten::add")[["where", "stream"]].tolist() == ["host", "1/2"]


def test_a_kernel_has_the_path_of_what_launched_it(tmp_path: Path):
    frame = read(tmp_path, cuda_step(0, 10))
    kernel = row(frame, "nvjet_tst")
    assert kernel["path"] == "aten::linear > aten::mm"
    assert kernel[["where", "self_us", "stream"]].tolist() == ["device", 5, "0/7"]
    assert (frame[frame["name"] == "aten::mm"]["where"] == "host").all()


def test_a_late_kernel_belongs_to_the_step_that_launched_it(tmp_path: Path):
    # The second step's annotation begins at 90, while kernels of the first run from 100 on.
    frame = read(tmp_path, cuda_step(0, 10) + cuda_step(90, 20))
    kernels = frame[(frame["where"] == "device") & (frame["name"] == "nvjet_tst")]
    assert kernels[["start_us", "step"]].to_numpy().tolist() == [[100, 0], [190, 1]]
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


def test_plain_packed_and_array_traces_read_alike(tmp_path: Path):
    events = [step(DECODE, 0, 50), event("aten::mm", 5, 20)]
    (tmp_path / "array.json").write_text(json.dumps(events))
    one = read(tmp_path, events)
    assert one.equals(read(tmp_path, events, packed=False))
    assert one.equals(read_torch(tmp_path / "array.json", NAME, 0))


GOOD = json.dumps({"traceEvents": [step(DECODE, 0, 50), event("aten::mm", 5, 20)]}).encode()
BROWSER = {"traceEvents": [{"ph": "X", "cat": "blink", "name": "Layout", "pid": 1, "tid": 1, "ts": 1, "dur": 2}]}


@pytest.mark.parametrize(
    ("content", "said"),
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
def test_a_foreign_file_is_an_error_of_two_lines(tmp_path: Path, content: bytes, said: str):
    path = tmp_path / NAME
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        read_torch(path, NAME, 0)
    assert str(path) in error.value.problem
    assert said in error.value.problem
    assert len(str(error.value).splitlines()) == 2
