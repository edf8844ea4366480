"""However a launch of the real engine ends: a failure says cause and fix, nothing is left, and nothing half-written."""

import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from launching import Launching, tiny_spec

from rollout_bench.contracts.record import Failure
from rollout_bench.contracts.spec import Spec
from rollout_bench.core.processes import shared_memory_of

pytestmark = pytest.mark.engine

MANY = {"warmup_iterations": 1, "iterations": 100_000}
"""Passes: so many that what is to hit the launch while it measures can't be late."""

APART = {"multiprocess": True}
"""Of an engine whose core is a process of its own."""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Yield where launches make temporary folders and leases: nothing is there at a test's end."""
    monkeypatch.setenv("ROLLOUT_BENCH_LEASES", str(tmp_path / "leases"))
    with tempfile.TemporaryDirectory(prefix="t") as folder:  # a short path, as those of sockets must be
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)
        assert [path for path in Path(folder).iterdir() if not path.name.startswith("rollout-bench-")] == []
        assert list((tmp_path / "leases").glob("*")) == []


def assert_nothing_left(launch: Launching, *files: str) -> None:
    """Assert that no process, no shared memory and no file but `files` below results/ is left of a launch."""
    assert (launch.survivors(), launch.left_behind()) == ([], list(files))


def assert_failed(launch: Launching, category: str, phase: str, cause: str) -> Failure:
    """Assert that a launch fails so, in two lines, and leaves nothing but the file that says it."""
    assert launch.finish() == 1
    failure = launch.failure()
    assert (failure.category, failure.phase) == (category, phase)
    assert cause in failure.cause
    assert len(launch.errors()) == 2
    assert_nothing_left(launch, f"failures/{launch.spec.mode}/{launch.spec.experiment()}/launch-0.json")
    return failure


def test_the_next_launch_ends_an_engine_without_guardian_and_command(tmp_path: Path):
    launch = Launching(tmp_path / "a", tiny_spec(engine=APART, measuring=MANY), plainly=True, forks_core=True)
    launch.wait_for("iteration 1/")
    worker = launch.child("engine.worker")
    launch.child("VLLM::EngineCore").suspend()  # or it could end by itself before the next launch
    launch.process.send_signal(signal.SIGSTOP)  # or it could start another guardian before it is killed
    launch.child("guardian").kill()
    launch.process.kill()
    launch.finish()
    worker.wait(timeout=60)
    left = {process.name() for process in launch.survivors(limit_s=0)}
    assert "VLLM::EngineCore" in left, "nothing is left any more that the next launch would have to end"
    assert launch.left_behind() == launch.claim()
    again = Launching(tmp_path / "a", tiny_spec(engine=APART, measuring=MANY), plainly=True)
    again.wait_for("importing")
    assert launch.survivors(limit_s=0) == []
    again.process.terminate()
    assert (again.finish(), again.errors()) == (
        143,
        ["interrupted by SIGTERM: the engine was ended, nothing was written"],
    )
    assert again.survivors() == []


def test_an_engine_killed_after_its_guardian_crashes_and_leaves_nothing(tmp_path: Path):
    passes = {"warmup_iterations": 0, "iterations": 50}  # enough to be killed in one, however late this process looks
    content: dict[str, Any] = tiny_spec(engine=APART, measuring=passes).model_dump(mode="json")
    content |= {"mode": "messages", "messages": {"steps": 1_900, "batches": [8]}}
    content["workload"]["output_tokens"] = 1_900  # no pass has more steps: with few it is over at once
    content["engine"]["args"]["max_model_len"] = 2_048
    launch = Launching(tmp_path, Spec.model_validate(content), plainly=True, forks_core=True)
    launch.wait_for("initializing")
    first = launch.child("guardian")
    first.kill()
    launch.wait_for("measuring")
    core = launch.child("VLLM::EngineCore")
    core.suspend()  # else all passes may be over before this process has looked at memory
    assert launch.child("guardian").pid != first.pid  # another one took over
    shared = shared_memory_of(process.pid for process in launch.started)
    assert len([path for path in shared if path.name.startswith("psm_")]) == 2
    core.kill()
    spared = {launch.process.pid, launch.child("guardian").pid, launch.child("engine.worker").pid}
    for process in [p for p in launch.survivors(limit_s=0) if p.pid not in spared]:
        process.send_signal(signal.SIGKILL)  # the trackers of shared memory too: nobody is left to remove it
    assert_failed(launch, "crash", "measuring", "ended without a word")
    deadline = time.monotonic() + 60
    while (left := [path for path in shared if path.exists()]) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == []


def test_a_timeout_names_the_phase_that_hung(tmp_path: Path):
    launch = Launching(tmp_path, tiny_spec(engine=APART), ["--timeout-s", "5"], plainly=True)
    launch.wait_for("importing")
    launch.child("engine.worker").suspend()
    waiting = [psutil.Process(launch.process.pid), launch.child("guardian")]
    before = [process.cpu_times()[:2] for process in waiting]
    time.sleep(1)
    assert sum(map(sum, (process.cpu_times()[:2] for process in waiting))) - sum(map(sum, before)) < 0.1
    assert "timeout_s" in assert_failed(launch, "timeout", "importing", "5 s").fix


def test_the_command_ends_with_its_parent_on_request(tmp_path: Path):
    parent = "import os, subprocess, sys; subprocess.run([*sys.argv[1:], '--die-with-parent', str(os.getpid())])"
    launch = Launching(tmp_path, tiny_spec(engine=APART), prefix=[sys.executable, "-c", parent])  # no starter imports
    launch.wait_for("importing")
    launch.process.kill()
    launch.finish()
    assert all(
        any(part in line for line in launch.child_lines)
        for part in ("rollout_bench measure", "guardian", "engine.worker")
    )
    assert_nothing_left(launch)
