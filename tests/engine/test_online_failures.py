"""However a launch with a server ends: the right category, in bounded time, and no process left."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from launching import Launching, online_spec

pytestmark = pytest.mark.engine

MANY = {"warmup_iterations": 1, "iterations": 100_000}


def test_kill_9_of_the_command_ends_server_and_engine(tmp_path: Path) -> None:
    launch = Launching(tmp_path, online_spec(measuring=MANY))
    launch.wait_for("iteration 1/")
    assert {line.partition(" ")[0] for line in launch.child_lines} >= {"VLLM::EngineCore", "VLLM::Worker"}
    launch.process.kill()
    launch.finish()
    assert launch.survivors() == []
    assert launch.left_behind() == [f".started/{launch.spec.mode}/{launch.spec.experiment()}/launch-0.json"]


def test_kill_9_of_what_sends_the_requests_ends_all(tmp_path: Path) -> None:
    launch = Launching(tmp_path, online_spec(measuring=MANY))
    launch.wait_for("iteration 1/")
    launch.child("engines.worker").kill()
    assert launch.finish() == 1
    assert launch.survivors() == []
    assert launch.failure().category == "crash"


def test_a_server_killed_in_mid_pass_is_a_crash_that_names_it(tmp_path: Path) -> None:
    launch = Launching(tmp_path, online_spec(measuring=MANY))
    launch.wait_for("iteration 1/")
    launch.child("api_server").kill()
    assert launch.finish() == 1
    assert launch.survivors() == []
    failure = launch.failure()
    assert (failure.category, failure.phase) == ("crash", "measuring")
    assert "server" in failure.cause
    assert len(launch.errors()) == 2


def test_an_engine_killed_behind_its_server_fails_the_launch(tmp_path: Path) -> None:
    launch = Launching(tmp_path, online_spec(measuring=MANY))
    launch.wait_for("iteration 1/")
    launch.child("VLLM::EngineCore").kill()
    assert launch.finish() == 1
    assert launch.survivors() == []
    assert launch.failure().phase == "measuring"
    assert launch.left_behind() == [f"failures/online/{launch.spec.experiment()}/launch-0.json"]


@pytest.mark.parametrize(
    ("limits", "until", "stop", "category"),
    [
        ('{"start_s": 8}', "importing", "api_server", "start_timeout"),
        ('{"iteration_s": 3}', "iteration 1/", "VLLM::EngineCore", "iteration_timeout"),
        ('{"stop_s": 0.001}', "stopping", None, "stop_timeout"),
        ('{"warmup_s": 0.001}', "warmup", None, "warmup_timeout"),
    ],
)
def test_each_part_of_a_launch_has_a_limit_and_a_category(
    tmp_path: Path, limits: str, until: str, stop: str | None, category: str
) -> None:
    in_a_pass = stop == "VLLM::EngineCore"
    measuring: dict[str, Any] = MANY if in_a_pass else {"warmup_iterations": 1, "iterations": 1}
    workload: dict[str, Any] = {"output_tokens": 110} if in_a_pass else {}  # long enough to be met while it runs
    launch = Launching(tmp_path, online_spec(measuring=measuring, workload=workload), ["--limits", limits])
    launch.wait_for(until)
    time.sleep(0.4 if in_a_pass else 0.0)  # between two passes the server is asked for its metrics
    if stop is not None:
        launch.child(stop).suspend()
    began = time.monotonic()
    assert launch.finish() == 1
    assert time.monotonic() - began < 60
    assert launch.survivors() == []
    failure = launch.failure()
    assert failure.category == category
    assert f"timeouts.{category.removesuffix('_timeout')}_s" in failure.fix
