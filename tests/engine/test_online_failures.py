"""However a launch with a server ends: the right category, in bounded time, and no process left."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import psutil
import pytest
from launching import Launching, online_spec

pytestmark = pytest.mark.engine

MANY = {"warmup_iterations": 1, "iterations": 100_000}

IN_CORE = {"multiprocess": False}
"""Of a server whose core computes by itself, and so starts sooner: for ends that are not those of a worker."""


@pytest.mark.untimed
def test_kill_9_of_the_command_ends_server_and_engine(tmp_path: Path) -> None:
    launch = Launching(tmp_path, online_spec(measuring=MANY))
    launch.wait_for("iteration 1/")
    assert {line.partition(" ")[0] for line in launch.child_lines} >= {"VLLM::EngineCore", "VLLM::Worker"}
    launch.process.kill()
    launch.finish()
    assert launch.survivors() == []
    assert launch.left_behind() == launch.claim()


@pytest.mark.untimed
def test_kill_9_of_what_sends_the_requests_ends_all(tmp_path: Path) -> None:
    launch = Launching(tmp_path, online_spec(measuring=MANY, engine=IN_CORE))
    launch.wait_for("iteration 1/")
    launch.child("engine.worker").kill()
    assert launch.finish() == 1
    assert launch.survivors() == []
    assert launch.failure().category == "crash"


@pytest.mark.untimed
def test_a_server_killed_in_mid_pass_is_a_crash_that_names_it(tmp_path: Path) -> None:
    launch = Launching(tmp_path, online_spec(measuring=MANY, engine=IN_CORE))
    launch.wait_for("iteration 1/")
    launch.child("api_server").kill()
    assert launch.finish() == 1
    assert launch.survivors() == []
    failure = launch.failure()
    assert (failure.category, failure.phase) == ("crash", "measuring")
    assert "server" in failure.cause
    assert len(launch.errors()) == 2


@pytest.mark.untimed
def test_an_engine_killed_behind_its_server_fails_the_launch(tmp_path: Path) -> None:
    launch = Launching(tmp_path, online_spec(measuring=MANY))
    launch.wait_for("iteration 1/")
    launch.child("VLLM::EngineCore").kill()
    assert launch.finish() == 1
    assert launch.survivors() == []
    assert launch.failure().phase == "measuring"
    assert launch.left_behind() == [f"failures/online/{launch.spec.experiment()}/launch-0.json"]


def test_an_engine_that_hangs_in_a_pass_is_told_by_the_limit_of_its_launch(tmp_path: Path) -> None:
    spec = online_spec(measuring=MANY, workload={"output_tokens": 110}, engine=IN_CORE)
    launch = Launching(tmp_path, spec, ["--timeout-s", "60"])
    launch.wait_for("iteration 1/")
    wait_for_a_pass(launch, tokens=4 * 2 * 110)
    launch.child("VLLM::EngineCore").suspend()
    assert launch.finish() == 1
    assert launch.survivors() == []
    failure = launch.failure()
    assert failure.category == "timeout"
    assert "timeout_s" in failure.fix


def wait_for_a_pass(launch: Launching, tokens: int) -> None:
    """Return early in a pass of so many tokens, as the server counts them; between two it is asked for its metrics."""
    server = launch.child("api_server")
    (port,) = {c.laddr.port for c in server.net_connections("tcp") if c.status == psutil.CONN_LISTEN}
    headers = {"Authorization": f"Bearer {server.environ()['VLLM_API_KEY']}"}
    share = 0.0
    while not 0.1 < share < 0.5:
        said = httpx.get(f"http://127.0.0.1:{port}/metrics", headers=headers).text
        (count,) = re.findall(r"^vllm:generation_tokens_total\{.*\} (\S+)$", said, re.MULTILINE)
        share = float(count) % tokens / tokens
