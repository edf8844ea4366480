"""The order of a transition's parts for each sleep, and what is timed; with an engine that notes its calls."""

from typing import Any

import pytest

from rollout_bench.contracts.weights import Weights
from rollout_bench.core.errors import MeasuringFailed
from rollout_bench.modes.cycle import worker as cycle
from rollout_bench.modes.cycle.record import Transition
from rollout_bench.modes.cycle.settings import CycleSpec
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

    def prepare(self) -> None:
        """Do nothing."""

    def stage(self, weights: Weights) -> None:
        self.engine.calls.append(f"stage {weights}")
        CLOCK.sleep(2 * PAUSE_S)

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
            ["stage second", "sleep 0", "update second", "reset", "wake scheduling"],
            ["drain", "pause", "update", "reset_prefix_cache", "resume"],
        ),
        (
            {"sleep": "2"},
            ["stage second", "sleep 2", "wake weights", "update second", "reset", "wake kv_cache"],
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
    assert [part.name for part in seen.parts] == parts
    assert seen.elapsed_s == pytest.approx(sum(part.elapsed_s for part in seen.parts))
    others_s = sum(part.elapsed_s for part in seen.parts if part.name != "update")
    assert others_s == pytest.approx(0.0, abs=1e-9)  # staging took its time outside of all parts
    assert [look.when for look in seen.memory] == ["before", "asleep", "after"]
    assert {look.device_free_bytes for look in seen.memory} == {80}


def test_requests_that_never_end_are_a_failure_in_two_lines(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cycle, "DRAIN_S", 0.05)
    with pytest.raises(MeasuringFailed, match=r"still under way 0\.05 s after") as caught:
        gone_through(RecordedEngine(unfinished=10**6), sleep="none")
    assert caught.value.category == "not_drained"
