"""`iterations: auto`: the number comes with the order to begin, and no pass that counts changes it.

The worker's loop is the real one; its engine takes as long as the test says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from launching import tiny_spec

from rollout_bench.contracts.record import Iteration
from rollout_bench.contracts.spec import MeasuringSpec
from rollout_bench.measure.engine import offline
from rollout_bench.measure.engine.vllm import Generated
from rollout_bench.measure.launch.protocol import Event, IterationDone, Job, PhaseBegins
from rollout_bench.measure.launch.recorder import few_flags
from rollout_bench.measure.launch.steadiness import Series

TIMES_S = st.sampled_from([0.5, 1.0, 1.01, 1.2, 5.0, 60.0])


def iteration(index: int, elapsed_s: float = 1.0, *, warmup: bool = False) -> Iteration:
    return Iteration(
        index=index, warmup=warmup, elapsed_s=elapsed_s, requests=8, sequences=8, prompt_tokens=8, output_tokens=60
    )


class Worker:
    """One call of offline mode's worker, whose passes take as long as `time_of` their index says.

    `orders`: what each order to begin says, the last one again and again.
    """

    def __init__(
        self, measuring: dict[str, Any], orders: Sequence[int | None], time_of: Callable[[int], float]
    ) -> None:
        self.told: list[Event] = []
        self.waits = 0
        self._orders, self._time_of = orders, time_of
        spec = tiny_spec(measuring=measuring)
        self._warmup = spec.measuring.warmup_iterations
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(offline, "loaded", lambda job, tell: SimpleNamespace(vocabulary=7, iterate=self._iterate))
            patch.setattr(offline, "source_of", lambda *_: SimpleNamespace(requests=lambda *_: []))
            offline.measure(Job(spec=spec, model="none", launch=0, timeout_s=1e6), self.told.append, self._wait)

    def _wait(self) -> int | None:
        self.waits += 1
        return self._orders[min(self.waits, len(self._orders)) - 1]

    def _iterate(self, _: object, index: int, wait: Callable[[], int | None]) -> Generated:
        ordered = wait()
        done = iteration(index, self._time_of(index), warmup=index < self._warmup)
        return Generated(0.0, done, [], {}, ordered)

    @property
    def passes(self) -> list[IterationDone]:
        """Return what it told of its passes."""
        return [event for event in self.told if isinstance(event, IterationDone)]


@given(st.integers(1, 3), st.integers(1, 32), st.data())
def test_the_order_sets_how_many_passes_count_whatever_they_take(warmup: int, k: int, data: st.DataObject):
    measuring = {"warmup_iterations": warmup, "iterations": "auto"}
    worker = Worker(measuring, [*[None] * warmup, k], lambda _: data.draw(TIMES_S))
    assert [done.iteration.warmup for done in worker.passes] == [True] * warmup + [False] * k
    assert [done.wanted for done in worker.passes] == [None] * warmup + [k] * k
    assert [e.phase for e in worker.told if isinstance(e, PhaseBegins)] == ["warmup", "measuring"]


def test_the_order_for_the_first_counting_pass_needs_a_number():
    with pytest.raises(RuntimeError, match="names no number"):
        Worker({"warmup_iterations": 1, "iterations": "auto"}, [None], lambda _: 1.0)


@given(st.integers(0, 2), st.integers(1, 10), st.lists(TIMES_S, min_size=22))
def test_a_given_number_of_iterations_needs_no_order(warmup: int, n: int, times_s: list[float]):
    worker = Worker({"warmup_iterations": warmup, "iterations": n}, [None], times_s.__getitem__)
    series = Series(MeasuringSpec(warmup_iterations=warmup, iterations=n))
    while not series.complete:
        series.take()
    assert len(worker.passes) == series.index == warmup + n


@pytest.mark.parametrize(
    ("warmup", "iterations", "orders", "passes"),
    [
        (1, "auto", [None, 9, 30, 2, None], 1 + 9),
        (2, "auto", [3, 3, 8], 2 + 8),
        (1, 4, [None, 8], 1 + 8),
        (1, 4, [None, None, 8], 1 + 4),
    ],
)
def test_only_the_order_to_begin_counting_sets_the_number(
    warmup: int, iterations: Any, orders: list[int | None], passes: int
):
    assert Worker({"warmup_iterations": warmup, "iterations": iterations}, orders, lambda _: 1.0).waits == passes


@pytest.mark.parametrize(("iterations", "counted", "flagged"), [("auto", 7, True), ("auto", 8, False), (4, 4, False)])
def test_a_launch_without_time_for_eight_passes_is_flagged(iterations: Any, counted: int, flagged: bool):
    spec = tiny_spec(measuring={"iterations": iterations})
    flags = few_flags(spec, [iteration(0, 40.0, warmup=True), *(iteration(1 + i, 30.0) for i in range(counted))])
    assert [(flag.code, flag.severity) for flag in flags] == ([("few_iterations", "warning")] if flagged else [])
    assert all(flag.sentence.startswith("7 iterations counted, where iterations: auto takes 8") for flag in flags)
    assert all("with 40 s for an iteration timeout_s left no time for more" in flag.sentence for flag in flags)
