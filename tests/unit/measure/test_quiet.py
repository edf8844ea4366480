"""A busy machine is told of before anything is measured: who uses it."""

from __future__ import annotations

import pytest

from rollout_bench.measure.machine.host import Reading
from rollout_bench.measure.machine.quiet import use_between


def reading(moment: float, busy: int, own: int, others: dict[tuple[int, int], tuple[str, int]]) -> Reading:
    return Reading(moment, 2, busy, 0, 200 + int(100 * moment), own, others, None, None, None, None)


def test_other_processes_are_named_busiest_first_without_our_own() -> None:
    before = reading(0, 0, 0, {(1, 0): ("make", 10), (2, 0): ("cc1", 5)})
    after = reading(1, 90, 30, {(1, 0): ("make", 20), (2, 0): ("cc1", 45), (3, 9): ("ld", 10)})
    use = use_between(before, after)
    assert use.share == pytest.approx(0.6)
    assert [(user.pid, user.share) for user in use.users] == [(2, 0.4), (1, 0.1), (3, 0.1)]
