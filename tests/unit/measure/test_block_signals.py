"""A signal ends a block also where it comes while a launch is being started, or where a launch heeds none."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable
from itertools import repeat
from typing import Any

import pytest

from rollout_bench.core.processes import Interrupted, signals_as_descriptor
from rollout_bench.measure.launch import coordinator
from rollout_bench.measure.launch.attempt import Seat
from rollout_bench.measure.launch.coordinator import Coordinator
from rollout_bench.measure.launch.rotation import Rotation

TURN_NEVER_COMES_S = 200.0
"""A launch that waits for a turn that nobody grants, gives up here, where the tests have failed already."""


def until_a_signal(_assignment: Any, signals: int, _word: Any, seat: Seat) -> int:
    """Wait as a launch does for its turn: for the coordinator's word, or a signal."""
    readable = select.select([signals, seat.turns.descriptor], [], [], TURN_NEVER_COMES_S)[0]
    return 128 + os.read(signals, 1)[0] if signals in readable else 1


def heedless(_assignment: Any, _signals: int, _word: Any, _seat: Seat) -> int:
    """Heed no signal."""
    time.sleep(TURN_NEVER_COMES_S)
    return 1


def ended(begin: Callable[..., int]) -> tuple[int | None, float]:
    """Start a block of one launch that a signal interrupts; return the launch's exit status and the seconds taken."""
    began = time.monotonic()
    with signals_as_descriptor() as signals:
        rotation = Rotation(["a"], [1], lambda *_: repeat("a"), 2)
        block = Coordinator([None], None, rotation, signals, lambda: None, begin)  # type: ignore[list-item, arg-type]
        with pytest.raises(Interrupted, match="SIGTERM"):
            block.run()
    return block._launched[0].status, time.monotonic() - began


def in_the_fork(monkeypatch: pytest.MonkeyPatch, in_launch: Callable[[], None]) -> None:
    """Send the coordinator a SIGTERM as soon as it has forked, and have the new process do `in_launch` first."""
    fork = os.fork

    def forked() -> int:
        pid = fork()
        if pid == 0:
            in_launch()
        else:
            os.kill(os.getpid(), signal.SIGTERM)
        return pid

    monkeypatch.setattr(coordinator.os, "fork", forked)


def test_a_signal_during_the_fork_reaches_the_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coordinator, "LONGEST_S", 100.0)
    in_the_fork(monkeypatch, lambda: time.sleep(1.0))  # the coordinator ends all before that is over
    status, took_s = ended(until_a_signal)
    assert status == 128 + signal.SIGTERM
    assert took_s < 60


def test_a_launch_that_heeds_no_signal_is_finally_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coordinator, "LONGEST_S", 0.5)
    in_the_fork(monkeypatch, lambda: None)
    status, took_s = ended(heedless)
    assert status == -signal.SIGKILL
    assert took_s < 100
