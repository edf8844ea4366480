"""A warm-up that was planned too short is lengthened on the real engine until enough steady iterations count."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from launching import Launching, tiny_spec

pytestmark = pytest.mark.engine

LIMIT_S = 30.0


@contextmanager
def hobbled(process: psutil.Process) -> Iterator[None]:
    """Stops the process again and again, for `LIMIT_S` seconds at most."""
    over = threading.Event()

    def hobble() -> None:
        deadline = time.monotonic() + LIMIT_S
        while not over.is_set() and time.monotonic() < deadline:
            process.suspend()
            time.sleep(0.3)
            process.resume()
            time.sleep(0.01)

    thread = threading.Thread(target=hobble)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_slow_first_iterations_join_the_warm_up_and_as_many_more_are_measured(tmp_path: Path) -> None:
    launch = Launching(tmp_path, tiny_spec(measuring={"warmup_iterations": 1, "iterations": 4}))
    launch.wait_for("measuring")
    with hobbled(launch.child("engines.worker")):
        launch.wait_for("iteration 1/4")
    assert launch.finish() == 0, launch.said + launch.log_text()[-3000:]
    record = launch.record()
    marks = [iteration.warmup for iteration in record.iterations]
    warmup = marks.count(True)
    assert 2 <= warmup <= 5
    assert marks == [True] * warmup + [False] * 4
    assert [iteration.index for iteration in record.iterations] == list(range(warmup + 4))
    (flag,) = [flag for flag in record.validity if flag.code == "warmup_extended"]
    assert flag.severity == "warning"
    assert f"longer than the rest, {record.iterations[1].elapsed_s:.4g}" in flag.sentence
    assert f"{warmup - 1} more count as warm-up and as many were measured in addition." in flag.sentence
    lines = [line for line in launch.said.splitlines() if "warm-up was too short" in line or "iteration " in line]
    assert "iteration 4/4" in lines[3]
    assert "warm-up was too short, " in lines[4]
    assert "iteration 4/4" in lines[-1]
    assert launch.errors() == []
