"""What torch_npu's profiler writes, read from files made in the layout known of it; no NPU wrote any of them."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from made_traces import DECODE, PREFILL

from rollout_bench.contracts.inside import Phase
from rollout_bench.modes.profile.traces.ascend import read_ascend
from rollout_bench.modes.profile.traces.categories import categorise
from rollout_bench.modes.profile.traces.torch import WHOLE_STEP
from rollout_bench.modes.profile.traces.trace_steps import step_times

NAME = "worker_20261120_ascend_pt"
BASE = 1_774_670_741_777_000
"""Microseconds since 1970, as the profiler has them: too many digits for a float to keep nanoseconds."""

LAYER = [
    ("RmsNorm", 4.0),
    ("DynamicQuant", 3.0),
    ("QuantBatchMatmulV3", 10.0),
    ("ApplyRotaryPosEmb", 2.0),
    ("ScatterPaKvCache", 2.5),
    ("FusedInferAttentionScore", 20.0),
    ("QuantBatchMatmulV3", 6.0),
    ("AddRmsNormBias", 4.0),
    ("QuantBatchMatmulV3", 12.0),
    ("SwiGlu", 3.0),
    ("QuantBatchMatmulV3", 8.0),
]
STEP = [("GatherV2", 5.0), *LAYER, *LAYER, ("MatMulV2", 15.0), ("ArgMaxV2", 7.0)]
"""Kernels of one step of a model with two layers, 0.5 us apart: 176 us of work."""

GAP_US = 40.0
"""Between two steps."""


def kernels(steps: int) -> list[dict[str, str]]:
    """Return rows of kernel_details.csv."""
    rows, now = [], 0.25
    for _ in range(steps):
        for kind, duration in STEP:
            rows.append(
                {
                    "Device_id": "0",
                    "Name": f"aclnn{kind}_{kind}",
                    "Type": kind,
                    "Accelerator Core": "AI_CORE",
                    "Start Time(us)": f"{BASE + int(now)}.{now % 1:.3f}\t".replace(".0.", "."),
                    "Duration(us)": str(duration),
                    "Wait Time(us)": "0.5",
                }
            )
            now += duration + 0.5
        now += GAP_US
    return rows


def csv(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_text("\n".join([",".join(rows[0]), *(",".join(row.values()) for row in rows)]) + "\n")


def view(rows: list[dict[str, str]], names: list[str]) -> list[dict[str, Any]]:
    """trace_view.json: an array, times as text; the host launches each step's kernels 30 us before they run."""
    events: list[dict[str, Any]] = [{"ph": "M", "name": "process_name", "pid": 1, "args": {"name": "Python"}}]
    per_step = len(rows) // len(names)

    def time(value: float) -> str:
        return f"{BASE + int(value // 1)}.{round(value % 1 * 1000):03d}"

    for number, name in enumerate(names):
        mine = rows[number * per_step : (number + 1) * per_step]
        first = float(mine[0]["Start Time(us)"].strip()[-8:]) % 1_000_000 - BASE % 1_000_000
        base = {"cat": "cpu_op", "ph": "X", "pid": 1, "tid": 1, "args": {}}
        events.append(base | {"name": name, "ts": time(first - 30), "dur": "25"})
        for i, kernel in enumerate(mine):
            at = first - 29 + i * 0.5
            events.append(base | {"name": "npu::op", "ts": time(at), "dur": 0.4, "args": {"Input Dims": [[8, 64]]}})
            flow = {"cat": "async_npu", "name": "torch_to_npu", "id": f"{number}.{i}", "pid": 1, "tid": 1}
            events.append(flow | {"ph": "s", "ts": time(at + 0.1)})
            events.append(flow | {"ph": "f", "pid": 2, "tid": 7, "ts": kernel["Start Time(us)"].strip()})
    return events


def write(folder: Path, rows: list[dict[str, str]], names: list[str] | None = None) -> Path:
    """Everything that the profiler leaves of these kernels."""
    output = folder / NAME / "ASCEND_PROFILER_OUTPUT"
    output.mkdir(parents=True)
    csv(output / "kernel_details.csv", rows)
    (output / "trace_view.json").write_text(json.dumps(view(rows, names) if names else []))
    return folder / NAME


def read(path: Path, phase: Phase = "decode") -> pd.DataFrame:
    return read_ascend(path, path.name, 0, phase, layers=2)


def steps_of(frame: pd.DataFrame) -> list[list[Any]]:
    return frame[frame["where"] == "step"][["phase", "duration_us"]].to_numpy().tolist()


WORK_US = sum(duration for _, duration in STEP)
LENGTH_US = WORK_US + 0.5 * (len(STEP) - 1)


def test_annotations_mark_steps_and_flows_tell_who_launched_a_kernel(tmp_path: Path):
    frame = read(write(tmp_path, kernels(2), [PREFILL, DECODE]))
    assert steps_of(frame) == [["prefill", pytest.approx(LENGTH_US + 40.5)], ["decode", pytest.approx(LENGTH_US)]]
    attention = frame[frame["name"] == "FusedInferAttentionScore"]
    assert attention["step"].tolist() == [0, 0, 1, 1]
    assert set(attention["path"]) == {"npu::op"}
    assert set(attention["where"]) == {"device"}


@pytest.mark.parametrize("names", [None, ["unmarked"] * 2, [WHOLE_STEP] * 2], ids=["alone", "launched", "marked"])
def test_marks_or_attention_kernels_tell_the_steps_without_annotations(tmp_path: Path, names: list[str] | None):
    frame = read(write(tmp_path, kernels(2), names), "prefill")
    assert steps_of(frame) == [["prefill", pytest.approx(LENGTH_US + 40.5)], ["prefill", pytest.approx(LENGTH_US)]]
    assert frame[frame["name"] == "ArgMaxV2"]["step"].tolist() == [0, 1]


def test_categories_of_a_step_add_up(tmp_path: Path):
    times = step_times(categorise(read(write(tmp_path, kernels(1))), "ascend"))
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
