"""Which iterations count: those after the planned warm-up; one that was too short is flagged."""

from __future__ import annotations

import pytest

from rollout_bench.contracts.spec import MeasuringSpec
from rollout_bench.measure.launch.steadiness import Series


@pytest.mark.parametrize(("warmup", "iterations", "first"), [(0, 1, 0), (1, 3, 0), (2, 8, 7), (0, 4, 3)])
def test_as_many_iterations_are_run_as_planned(warmup: int, iterations: int, first: int) -> None:
    series = Series(MeasuringSpec(warmup_iterations=warmup, iterations=iterations), first)
    warm = []
    while not series.complete:
        warm.append(series.warming_up)
        series.take()
    assert warm == [True] * warmup + [False] * iterations
    assert series.index == first + warmup + iterations
