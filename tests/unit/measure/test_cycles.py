"""Cycles: a transition's parts, updates of weights, the trainer's tensors, and flags of what went wrong."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from launching import tiny_spec
from safetensors.torch import load_file
from synthetic_cycles import proof

from rollout_bench.checkpoints.build import build_checkpoint
from rollout_bench.checkpoints.formats import tensors
from rollout_bench.checkpoints.shapes import SyntheticModel
from rollout_bench.contracts.spec import Spec
from rollout_bench.contracts.weights import Weights
from rollout_bench.core.errors import MeasuringFailed
from rollout_bench.measure.launch.flags import not_finite_flags
from rollout_bench.modes.cycle import worker as cycle
from rollout_bench.modes.cycle.collector import cycle_flags
from rollout_bench.modes.cycle.extension import TrainerStandIn, buckets, rolled
from rollout_bench.modes.cycle.record import Transition
from rollout_bench.modes.cycle.settings import CycleSpec
from rollout_bench.modes.cycle.updates import InProcess, Reload
from rollout_bench.modes.cycle.worker import Transitions

PAUSE_S = 0.02


class Clock:
    """A clock that only what waits moves on, so that no busy machine changes a time."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s

    perf_counter = monotonic

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


CLOCK = Clock()


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cycle, "time", CLOCK)


class RecordedEngine:
    """Takes what a launch asks of an engine and of its `LLM`, and notes it."""

    vocabulary = 9

    def __init__(self, unfinished: int = 0) -> None:
        self.llm = self.llm_engine = self
        self.calls: list[str] = []
        self.weights: Weights = "first"
        self.unfinished = unfinished

    def has_unfinished_requests(self) -> bool:
        self.unfinished -= 1
        return self.unfinished >= 0

    def sleep(self, level: int) -> None:
        self.calls.append(f"sleep {level}")

    def wake_up(self, tags: list[str] | None = None) -> None:
        self.calls.append(f"wake {'all' if tags is None else '+'.join(tags)}")

    def reset_prefix_cache(self) -> None:
        self.calls.append("reset")

    def collective_rpc(self, method: str, kwargs: dict[str, Any] | None = None) -> list[Any]:
        name = method.removeprefix("rollout_bench_")
        if name == "device_free":
            return [80, 90]
        self.calls.append(f"{name} {kwargs}" if kwargs else name)
        CLOCK.sleep(PAUSE_S)
        return [7, 7]


class RecordedUpdates:
    """Takes the update of a transition."""

    def __init__(self, engine: RecordedEngine, held_bytes: int = 0) -> None:
        self.engine, self.held_bytes = engine, held_bytes

    def apply(self, weights: Weights) -> dict[str, Any]:
        self.engine.calls.append(f"update {weights}")
        self.engine.weights = weights
        CLOCK.sleep(2 * PAUSE_S)
        return {"transfer_s": 0.001, "quantize_s": None, "size_bytes": 5, "buckets": 1}


def gone_through(engine: RecordedEngine | None = None, **settings: Any) -> tuple[list[str], Transition]:
    """Return what an engine was asked for, and what came of the transition."""
    engine = engine or RecordedEngine()
    spec = CycleSpec(update="in_process", **settings)
    transitions = Transitions(engine, spec, RecordedUpdates(engine))  # type: ignore[arg-type]
    return engine.calls, transitions.go("second", CLOCK.monotonic())


@pytest.mark.parametrize(
    ("settings", "calls", "parts"),
    [
        (
            {"sleep": "none"},
            ["sleep 0", "update second", "reset", "wake scheduling"],
            ["drain", "pause", "update", "reset_prefix_cache", "resume"],
        ),
        (
            {"sleep": "2"},
            ["sleep 2", "wake weights", "update second", "reset", "wake kv_cache"],
            ["drain", "sleep", "wake_weights", "update", "reset_prefix_cache", "wake_kv_cache"],
        ),
    ],
    ids=["no sleep", "asleep"],
)
def test_parts_follow_verls_order_and_nothing_else_is_timed(
    settings: dict[str, Any], calls: list[str], parts: list[str]
):
    asked, seen = gone_through(**settings)
    assert asked == calls
    assert ([part.name for part in seen.parts], seen.elapsed_s) == (
        parts,
        pytest.approx(sum(part.elapsed_s for part in seen.parts)),
    )
    others_s = sum(part.elapsed_s for part in seen.parts if part.name != "update")
    assert others_s == pytest.approx(0.0, abs=1e-9)
    assert ([look.when for look in seen.memory], {look.device_free_bytes for look in seen.memory}) == (
        ["before", "asleep", "after"],
        {80},
    )


def test_requests_that_never_end_are_a_failure_in_two_lines(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cycle, "DRAIN_S", 0.05)
    with pytest.raises(MeasuringFailed, match=r"still under way 0\.05 s after") as caught:
        gone_through(RecordedEngine(unfinished=10**6), sleep="none")
    assert caught.value.category == "not_drained"


SHAPE = SyntheticModel(preset="qwen3-tiny", shape={"num_hidden_layers": 1}).resolve()


class Called:
    """An `LLM` that notes what its workers are asked for, or fails with an error."""

    def __init__(self, answers: list[Any] | None = None, error: Exception | None = None) -> None:
        self.answers, self.error = answers, error
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def collective_rpc(self, method: str, kwargs: dict[str, Any] | None = None) -> Any:
        self.asked.append((method, kwargs or {}))
        if self.error is not None:
            raise self.error
        return self.answers


def spec_of(synthetic: bool = True, weights_format: str = "bf16", **cycle: Any) -> Spec:
    spec = tiny_spec(quant={"weights_format": weights_format}).model_dump(mode="json")
    named = {"name": "tiny", "weights": None if synthetic else "tiny"}
    named["synthetic"] = SHAPE.model_dump(mode="json") if synthetic else None  # type: ignore[assignment]
    settings = {"sleep": "none", "update": "in_process", **cycle}
    return Spec.model_validate_json(json.dumps({**spec, "mode": "cycle", "model": named, "cycle": settings}))


def failure_of(updates: Any, what: str, *arguments: Any) -> tuple[str, str, str]:
    with pytest.raises(MeasuringFailed) as caught:
        getattr(updates, what)(*arguments)
    assert "\n" not in caught.value.cause + caught.value.fix
    return caught.value.category, caught.value.cause, caught.value.fix


def test_each_rank_makes_trainer_tensors_and_the_slowest_counts():
    llm = Called([100, 100])
    updates = InProcess(llm, spec_of(weights_format="compressed-tensors-w8a8"), "m")
    updates.prepare()
    assert updates.held_bytes == 200
    quick = {"transfer_s": 1.0, "quantize_s": 2.0, "size_bytes": 5, "buckets": 1}
    slow = {**quick, "transfer_s": 2.5}
    llm.answers = [quick, slow]
    assert updates.apply("second") == slow
    what = {"shape": SHAPE.model_dump(), "weights_format": "compressed-tensors-w8a8"}
    assert llm.asked == [
        ("rollout_bench_trainer", what),
        ("rollout_bench_update", {"weights": "second"}),
    ]


@pytest.mark.parametrize(
    "error",
    [
        NotImplementedError("Model reloading with `gguf` format"),
        RuntimeError("MoonEP does not support in-place weight reloads yet"),
        ValueError("Unsupported quantization for reloading"),
    ],
    ids=str,
)
@pytest.mark.parametrize("method", [Reload, InProcess])
def test_a_format_refused_by_vllm_is_reported_as_not_updatable(method: type, error: Exception):
    category, cause, fix = failure_of(method(Called(error=error), spec_of(), "m"), "apply", "first")
    assert category == "not_updatable"
    assert cause == f"vLLM can't update the weights of bf16 (format bf16): {type(error).__name__}: {error}"
    assert "another quantization" in fix


UNTIED = SyntheticModel(
    preset="qwen3-tiny", shape={"num_hidden_layers": 1, "tie_word_embeddings": False}, seed=7
).resolve()


class Worker(TrainerStandIn):
    """Takes what is handed over, as vLLM's worker does."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.loaded: dict[str, torch.Tensor] = {}

    def reload_weights(self, weights_iterator: Any) -> None:
        self.loaded = dict(weights_iterator)


@pytest.mark.parametrize("weights_format", ["bf16", "compressed-tensors-w8a8", "compressed-tensors-w8a16"])
def test_the_trainer_hands_over_a_checkpoint_of_that_format(weights_format: str, tmp_path: Path):
    worker = Worker()
    held = worker.rollout_bench_trainer(UNTIED.model_dump(), weights_format)
    one_set = 2 * sum(spec.elements for spec in tensors(UNTIED))
    assert held == 2 * one_set
    for weights, shape in (("first", UNTIED), ("second", UNTIED.other_weights())):
        build_checkpoint(shape, weights_format, tmp_path / weights)
        stored = load_file(tmp_path / weights / "model.safetensors")
        took = worker.rollout_bench_update(weights)  # type: ignore[arg-type]
        assert worker.loaded.keys() == stored.keys()
        assert all(torch.equal(worker.loaded[name], stored[name]) for name in stored)
        assert (took["size_bytes"], took["quantize_s"] > 0) == (one_set, weights_format != "bf16")
        assert took["transfer_s"] > 0


@given(st.lists(st.integers(0, 50)), st.integers(1, 60))
def test_buckets_keep_the_order_and_exceed_no_limit_needlessly(sizes: list[int], limit: int):
    named = [(str(number), torch.zeros(size, dtype=torch.int8)) for number, size in enumerate(sizes)]
    made = list(buckets(named, limit))
    assert [name for bucket in made for name, _ in bucket] == [name for name, _ in named]
    held = [sum(tensor.nbytes for _, tensor in bucket) for bucket in made]
    assert all(size <= limit or len(bucket) == 1 for size, bucket in zip(held, made, strict=True))
    assert all(size + following[0][1].nbytes > limit for size, following in zip(held, made[1:], strict=False))


def test_the_second_set_of_named_weights_has_all_tensors_rolled():
    matrix, vector = torch.arange(6).view(3, 2), torch.arange(3)
    assert (rolled(matrix).tolist(), rolled(vector).tolist()) == ([[4, 5], [0, 1], [2, 3]], [2, 0, 1])
    assert rolled(torch.tensor(3)).item() == 3


OTHER = "3" * 16


@pytest.mark.parametrize(
    ("second", "first", "code", "words"),
    [
        ({}, {}, None, ""),
        ({}, {"tokens": OTHER}, "output_changed", "the engine had other greedy tokens than as loaded"),
        ({}, {"checksum": OTHER}, "output_changed", "the engine had other checksum than as loaded"),
        (
            {"not_finite": 2},
            {},
            "output_changed",
            "2 of 60 tensors of an engine have values that are",
        ),
        ({"changed_trained": 47}, {}, "update_without_effect", "1 of 48 weights that had to change"),
        ({}, {"changed_trained": 46}, "update_without_effect", "2 of 48 weights that had to change"),
        ({"tokens": "first"}, {}, "update_without_effect", "the same greedy tokens as before"),
    ],
    ids=[
        "as it should be",
        "tokens",
        "checksum",
        "no numbers",
        "a weight stays",
        "stays on the way back",
        "tokens stay",
    ],
)
def test_an_update_that_is_none_makes_a_launch_invalid(
    second: dict[str, Any], first: dict[str, Any], code: str | None, words: str
):
    loaded = proof("first", changed=False)
    second = {**second, **({"tokens": loaded.tokens} if second.get("tokens") else {})}
    after = [proof("second", changed=True), proof("first", changed=True)]
    proofs = [loaded, *(one.model_copy(update=more) for one, more in zip(after, (second, first), strict=True))]
    found = not_finite_flags(proofs) or cycle_flags(*proofs)
    assert [(flag.code, flag.severity) for flag in found] == ([(code, "invalid")] if code else [])
    assert all(words in flag.sentence for flag in found)
