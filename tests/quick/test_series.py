"""Which iterations count: the planned warm-up is the least, and a slow beginning lengthens it, within a limit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from launching import tiny_spec

from rollout_bench.contracts.record import Iteration
from rollout_bench.contracts.spec import MeasuringSpec
from rollout_bench.measure.launch.progress import Progress
from rollout_bench.measure.launch.protocol import WarmupExtended
from rollout_bench.measure.launch.recorder import steadiness_flags, warmup_flags
from rollout_bench.measure.launch.steadiness import Series, judge

NOISE = (1.0, 1.004, 0.997, 1.001, 0.996, 1.003, 0.999)

PLANNED = MeasuringSpec(warmup_iterations=1, iterations=4)


def run(warmup: int, iterations: int, time_of: Callable[[int], float], limit_s: float = 1e6) -> tuple[list[float], int]:
    """Return times of all iterations of a launch of at most `limit_s`, and how many of them count, the last ones."""
    series = Series(MeasuringSpec(warmup_iterations=warmup, iterations=iterations))
    times, moved = [], 0
    while not series.complete:
        times.append(time_of(series.index))
        doubt = series.take(times[-1], limit_s - sum(times))
        moved += doubt.more if doubt else 0
    return times, len(times) - warmup - moved


def test_a_series_that_may_not_be_extended_makes_as_many_as_planned() -> None:
    series = Series(MeasuringSpec(warmup_iterations=1, iterations=5), may_extend=False)
    doubts = []
    while not series.complete:
        doubts.append(series.take(2.0 if series.index < 3 else noisy(series.index), 1e6))
    assert (series.index, doubts) == (6, [None] * 6)


def noisy(index: int) -> float:
    return NOISE[index % len(NOISE)]


@pytest.mark.parametrize(("warmup", "iterations"), [(0, 1), (1, 3), (2, 8), (0, 4)])
def test_a_steady_launch_runs_what_is_planned(warmup: int, iterations: int) -> None:
    assert run(warmup, iterations, noisy) == ([noisy(i) for i in range(warmup + iterations)], iterations)


@pytest.mark.parametrize("slow", [1, 2, 3])
def test_slow_iterations_beyond_the_planned_warm_up_are_made_up_for(slow: int) -> None:
    times, counted = run(1, 8, lambda i: noisy(i) * (1.1 if i < 1 + slow else 1.0))
    assert (len(times), counted) == (1 + slow + 8, 8)
    assert judge(times[-counted:]) is None


@pytest.mark.parametrize(("limit_s", "iterations"), [(7.0, 5), (8.0, 6)])
def test_a_launch_whose_time_is_nearly_over_is_not_lengthened(limit_s: float, iterations: int) -> None:
    times, _ = run(1, 4, lambda i: noisy(i) * (1.1 if i < 2 else 1.0), limit_s)
    assert len(times) == iterations


def test_a_planned_warm_up_that_is_long_enough_is_not_lengthened() -> None:
    times, counted = run(3, 4, lambda i: noisy(i) * (1.1 if i < 3 else 1.0))
    assert (len(times), counted) == (7, 4)


def test_an_engine_that_never_settles_ends_with_a_flag_that_says_so() -> None:
    times, counted = run(1, 4, lambda i: 0.01**i)
    assert (len(times), counted) == (1 + 4 + 4, 4)
    (flag,) = steadiness_flags(times[-counted:], PLANNED)
    assert flag.code == "warmup_too_short"


def test_where_the_limit_is_reached_the_flag_says_how_much_more_it_would_take() -> None:
    (flag,) = steadiness_flags([1.1, 1.0, 1.001, 0.999], PLANNED)
    assert (flag.code, flag.severity) == ("warmup_too_short", "warning")
    assert flag.sentence.endswith("It would take 1 more of warm-up; the launch was not lengthened any further.")


@given(st.integers(0, 3), st.integers(1, 12), st.data())
def test_any_launch_ends_with_as_many_that_count_as_are_wanted(warmup: int, n: int, data: st.DataObject) -> None:
    times, counted = run(warmup, n, lambda _: data.draw(st.sampled_from([1.0, 1.01, 1.2, 5.0])))
    assert counted == n
    assert warmup + n <= len(times) <= warmup + 2 * n


def test_an_extension_is_told_with_evidence_and_what_was_done() -> None:
    events = [WarmupExtended(iterations=[1], sentence="First."), WarmupExtended(iterations=[2, 3], sentence="Second.")]
    (flag,) = warmup_flags(events)
    assert (flag.code, flag.severity) == ("warmup_extended", "warning")
    assert flag.sentence == "First. Second. 3 more count as warm-up and as many were measured in addition."
    assert warmup_flags([]) == []


def test_progress_counts_on_after_an_extension(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps({"launches": []}))
    progress = Progress(tiny_spec(), 0, tmp_path / "launch-0.json", plan)  # 1 of warm-up, 2 that count

    def iteration(index: int) -> None:
        counts = {"requests": 1, "sequences": 1, "prompt_tokens": 1, "output_tokens": 60}
        progress.iteration(Iteration(index=index, warmup=index == 0, elapsed_s=60.0, **counts))

    for index in range(3):
        iteration(index)
    progress.warmup_extended(1)
    iteration(3)
    assert [line.partition(": ")[2] for line in capsys.readouterr().err.splitlines()] == [
        "warm-up 1/1, 1 tok/s; about 2 min left",
        "iteration 1/2, 1 tok/s; about 60 s left",
        "iteration 2/2, 1 tok/s",
        "warm-up was too short, 1 more to run; about 60 s left",
        "iteration 2/2, 1 tok/s",
    ]
