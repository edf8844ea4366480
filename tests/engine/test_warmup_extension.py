"""A warm-up that was planned too short is lengthened on the real engine until enough steady iterations count."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from launching import Launching, tiny_spec

pytestmark = pytest.mark.engine

LONG = {"samples_per_prompt": 4, "output_tokens": 120}
"""An iteration so long, about half a second, that it is met while it runs."""

STOPPED_S = 5.0


def test_slow_first_iterations_join_the_warm_up_and_as_many_more_are_measured(tmp_path: Path) -> None:
    spec = tiny_spec(workload=LONG, measuring={"warmup_iterations": 1, "iterations": 4})
    launch = Launching(tmp_path, spec)
    launch.wait_for("measuring")
    worker = launch.computing()
    worker.suspend()
    time.sleep(STOPPED_S)
    worker.resume()
    assert launch.finish() == 0, launch.said + launch.log_text()[-3000:]
    record = launch.record()
    marks = [iteration.warmup for iteration in record.iterations]
    warmup = marks.count(True)
    assert 2 <= warmup <= 5, [iteration.elapsed_s for iteration in record.iterations]
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
