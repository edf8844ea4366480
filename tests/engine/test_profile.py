"""Mode profile on the real engine: traces and step times of two quants, and no throughput."""

import functools
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from launching import HAS_AMX, SETTINGS, W8A8, Launching, online_spec, tiny_spec

from rollout_bench.checkpoints.build import build_checkpoint
from rollout_bench.checkpoints.shapes import SyntheticModel
from rollout_bench.contracts.spec import Spec
from rollout_bench.contracts.store import read_launched, traces_path
from rollout_bench.modes.profile.profiles import without_other_phases
from rollout_bench.modes.profile.record import Profile
from rollout_bench.modes.profile.traces.categories import categorise
from rollout_bench.modes.profile.traces.trace import read_traces
from rollout_bench.modes.profile.traces.trace_steps import step_times

pytestmark = pytest.mark.engine

STEPS = 3


QUANTS = {"bf16": SETTINGS["quant"], "w8a8": W8A8}

Profiled = tuple[Path, Profile]
"""A record, and where it lies."""


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Profiled]:
    """Return the profile of a quant, made once."""

    @functools.cache
    def profile(quant: str) -> Profiled:
        folder = tmp_path_factory.mktemp("profile")
        load = {"prompts": 2, "prompt_tokens": 16, "output_tokens": 8}
        content = tiny_spec(quant=QUANTS[quant], workload=load).model_dump(mode="json")
        spec = Spec.model_validate({**content, "mode": "profile", "profile": {"steps": STEPS}})
        build_checkpoint(SyntheticModel(preset="qwen3-tiny").resolve(), spec.quant.weights_format, folder / "model")
        launch = Launching(folder, spec, model=folder / "model")
        assert launch.finish() == 0, launch.said + launch.log_text()[-3000:]
        return launch.out, read_launched(launch.out, "profile")

    return profile


@pytest.fixture(scope="module")
def done(measured: Callable[[str], Profiled]) -> Profiled:
    return measured("bf16")


@pytest.mark.parametrize("quant", QUANTS)
def test_what_the_time_of_a_step_went_to_is_known(measured: Callable[[str], Profiled], quant: str):
    path, record = measured(quant)
    events = without_other_phases(read_traces(traces_path(path), record), record)
    times = step_times(categorise(events, "cpu"))
    for phase in ("prefill", "decode"):
        own = times[times["phase"] == phase]
        assert own[own["category"] != "other"]["us"].sum() >= 0.9 * own["us"].sum() > 0
        assert own[own["category"] == "linear"]["us"].sum() > 0
        apart = quant == "w8a8" and not HAS_AMX  # whose kernel quantizes on the way
        assert (own[own["category"] == "quantize"]["us"].sum() > 0) == apart


def events(path: Path, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(gzip.decompress((traces_path(path) / name).read_bytes()))["traceEvents"]
    return found


def test_each_phase_has_steps_with_and_without_the_profiler(done: Profiled):
    _, record = done
    windows = [(step.phase, step.profiled) for step in record.steps]
    each = [False] * STEPS + [True] * STEPS + [False] * STEPS
    assert windows == [("prefill", p) for p in each] + [("decode", p) for p in each]
    decode = [step for step in record.steps if step.phase == "decode"]
    assert {(step.tokens, step.sequences) for step in decode} == {(4, 4)}
    # 4 sequences of 16 prompt tokens, half-way through 8 more
    assert all(4 * 17 <= (step.context_tokens or 0) <= 4 * 24 for step in decode)
    prefill = [step for step in record.steps if step.phase == "prefill"]
    assert all(step.tokens > 16 and step.sequences >= 2 for step in prefill)


def test_the_traces_are_whole_and_mark_each_step(done: Profiled):
    path, record = done
    assert [(trace.name, trace.phase, trace.rank) for trace in record.traces] == [
        ("prefill.rank0.trace.json.gz", "prefill", 0),
        ("decode.rank0.trace.json.gz", "decode", 0),
    ]
    for trace in record.traces:
        found = events(path, trace.name)
        assert trace.size_bytes == (traces_path(path) / trace.name).stat().st_size
        marks = [event for event in found if event.get("name") == "rollout_bench_step"]
        assert len(marks) == STEPS
        # what Perfetto reads: the trace-event format
        assert all({"ph", "pid", "tid"} <= set(event) for event in found if event["ph"] == "X")
        assert all(event["ts"] >= 0 and event["dur"] >= 0 for event in found if event["ph"] == "X")


def test_the_traced_steps_last_as_long_as_the_record_says(done: Profiled):
    path, record = done
    pairs = list[tuple[float, float]]()
    for trace in record.traces:
        marks = [event for event in events(path, trace.name) if event.get("name") == "rollout_bench_step"]
        recorded = [step.elapsed_s for step in record.steps if step.profiled and step.phase == trace.phase]
        traced = [event["dur"] / 1e6 for event in sorted(marks, key=lambda event: float(event["ts"]))]
        pairs += zip(traced, recorded, strict=True)
    assert all(traced <= recorded + 1e-4 for traced, recorded in pairs)  # the record's clock is read around the trace's
    # others may have the core between two readings, though hardly in every step
    assert any(traced == pytest.approx(recorded, rel=0.1, abs=0.002) for traced, recorded in pairs)


def test_a_server_is_profiled_through_its_own_requests(tmp_path: Path):
    content = online_spec(measuring={"iterations": 1}).model_dump(mode="json")
    content |= {"mode": "profile", "profile": {"steps": 4, "through": "server"}}
    launch = Launching(tmp_path, Spec.model_validate(content))
    launch.wait_for("measuring")
    assert launch.finish() == 0, launch.said + launch.log_text()[-3000:]
    record = read_launched(launch.out, "profile")
    assert [(trace.phase, trace.rank) for trace in record.traces] == [("prefill", 0), ("decode", 0)]
    assert {(step.phase, step.profiled) for step in record.steps} == {("decode", False)}
    assert 1 <= max(step.sequences for step in record.steps) <= 8  # on a busy machine each ends before the next begins
    assert launch.survivors() == []
