"""A profile launch on the real engine: traces, step times, and no throughput anywhere."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from launching import Launching, online_spec, tiny_spec

from rollout_bench.contracts.inside import Profile
from rollout_bench.contracts.spec import Spec
from rollout_bench.contracts.store import read_launched, traces_path

pytestmark = pytest.mark.engine

THROUGHPUT = ("per_s", "throughput", "tput", "iterations_s")


def profile_spec(base: Spec | None = None, **settings: Any) -> Spec:
    """Return the tiny spec in profile mode; `settings` are laid over four steps of both phases."""
    content = (base or tiny_spec(measuring={"iterations": 1})).model_dump(mode="json")
    return Spec.model_validate({**content, "mode": "profile", "profile": {"steps": 4, **settings}})


def profiled(folder: Path, spec: Spec) -> tuple[Launching, Profile]:
    launch = Launching(folder, spec)
    assert launch.finish() == 0, launch.said + launch.log_text()[-3000:]
    record = read_launched(launch.out, "profile")
    assert isinstance(record, Profile)
    return launch, record


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Launching, Profile]:
    """Return a profile through the engine."""
    return profiled(tmp_path_factory.mktemp("profile"), profile_spec())


def events(launch: Launching, name: str) -> list[dict[str, Any]]:
    content = json.loads(gzip.decompress((traces_path(launch.out) / name).read_bytes()))
    found: list[dict[str, Any]] = content["traceEvents"]
    return found


def test_each_phase_has_steps_with_and_without_the_profiler(done: tuple[Launching, Profile]):
    _, record = done
    windows = [(step.phase, step.profiled) for step in record.steps]
    each = [False] * 4 + [True] * 4 + [False] * 4
    assert windows == [("prefill", p) for p in each] + [("decode", p) for p in each]
    decode = [step for step in record.steps if step.phase == "decode"]
    assert {(step.tokens, step.sequences) for step in decode} == {(8, 8)}
    # 8 sequences of 130 prompt tokens, half-way through 16 more
    assert all(8 * 132 <= (step.context_tokens or 0) <= 8 * 146 for step in decode)
    prefill = [step for step in record.steps if step.phase == "prefill"]
    assert all(step.tokens > 130 and step.sequences >= 4 for step in prefill)


def test_the_record_has_no_throughput_in_any_field(done: tuple[Launching, Profile]):
    def names(value: Any) -> set[str]:
        if isinstance(value, dict):
            return set(value).union(*map(names, value.values()))
        return set().union(*map(names, value)) if isinstance(value, list) else set()

    record = done[1].model_dump(mode="json", exclude={"spec"})
    fields = names(record)
    assert not [name for name in fields if any(word in name for word in THROUGHPUT)]


def test_the_traces_are_whole_and_mark_each_step(done: tuple[Launching, Profile]):
    launch, record = done
    assert [(trace.name, trace.phase, trace.rank) for trace in record.traces] == [
        ("prefill.rank0.trace.json.gz", "prefill", 0),
        ("decode.rank0.trace.json.gz", "decode", 0),
    ]
    for trace in record.traces:
        found = events(launch, trace.name)
        assert trace.size_bytes == (traces_path(launch.out) / trace.name).stat().st_size
        marks = [event for event in found if event.get("name") == "rollout_bench_step"]
        assert len(marks) == 4
        # what Perfetto reads: the trace-event format
        assert all({"ph", "pid", "tid"} <= set(event) for event in found if event["ph"] == "X")
        assert all(event["ts"] >= 0 and event["dur"] >= 0 for event in found if event["ph"] == "X")


def test_the_traced_steps_last_as_long_as_the_record_says(done: tuple[Launching, Profile]):
    launch, record = done
    for trace in record.traces:
        marks = [event for event in events(launch, trace.name) if event.get("name") == "rollout_bench_step"]
        said = [step.elapsed_s for step in record.steps if step.profiled and step.phase == trace.phase]
        traced = [event["dur"] / 1e6 for event in sorted(marks, key=lambda event: float(event["ts"]))]
        alike = [a == pytest.approx(b, rel=0.1, abs=0.002) for a, b in zip(traced, said, strict=True)]
        assert sum(alike) >= len(said) / 2  # others may have the core for a moment between two readings


def test_the_linear_layers_are_those_of_the_model(done: tuple[Launching, Profile]):
    shapes = {shape.role: (shape.in_features, shape.out_features, shape.layers) for shape in done[1].linears}
    assert shapes == {
        "qkv": (128, 256, 2),
        "o": (128, 128, 2),
        "gate_up": (128, 512, 2),
        "down": (256, 128, 2),
        "lm_head": (128, 2048, 1),
    }


def test_nothing_else_is_left_beside_the_record(done: tuple[Launching, Profile]):
    launch, record = done
    folder = f"profile/{record.spec.experiment()}"
    assert launch.left_behind() == [
        f"{folder}/launch-0.json",
        f"{folder}/launch-0.traces/decode.rank0.trace.json.gz",
        f"{folder}/launch-0.traces/prefill.rank0.trace.json.gz",
    ]
    assert launch.survivors() == []


@pytest.mark.untimed
def test_a_server_is_profiled_through_its_own_requests(tmp_path: Path):
    launch, record = profiled(tmp_path, profile_spec(online_spec(measuring={"iterations": 1}), through="server"))
    assert [(trace.phase, trace.rank) for trace in record.traces] == [("prefill", 0), ("decode", 0)]
    assert {(step.phase, step.profiled) for step in record.steps} == {("decode", False)}
    assert max(step.sequences for step in record.steps) == 8
    assert launch.survivors() == []


@pytest.mark.untimed
def test_an_engine_core_in_a_process_of_its_own_is_followed(tmp_path: Path):
    _, record = profiled(tmp_path, profile_spec(tiny_spec(engine={"multiprocess": True}, measuring={"iterations": 1})))
    windows = [(step.phase, step.profiled) for step in record.steps]
    assert {phase for phase, _ in windows} <= {"prefill", "mixed", "decode"}
    decode = [step for step in record.steps if step.phase == "decode"]
    assert [step.profiled for step in decode[-12:]] == [False] * 4 + [True] * 4 + [False] * 4
    assert {step.sequences for step in decode[-12:]} == {8}
    assert all(8 * 132 <= (step.context_tokens or 0) <= 8 * 146 for step in decode[-12:])
    assert sorted(trace.phase for trace in record.traces) == ["decode", "prefill"]
