"""A launch whose engine was kept from running, or whose devices another could take, does not count, and says why."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from launching import tiny_spec

from rollout_bench.core.processes import group_of
from rollout_bench.measure.machine import readings
from rollout_bench.measure.machine.leases import Wanted, lease
from rollout_bench.measure.machine.readings import LATE_S, LOOK_S, Pauses, Surroundings


@pytest.fixture
def engine() -> Iterator[psutil.Process]:
    """Yield a process that leads a session, as an engine's does."""
    with subprocess.Popen(["sleep", "100"], start_new_session=True) as process:
        yield psutil.Process(process.pid)
        process.kill()


def wait(looking: Pauses, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while (left_s := deadline - time.monotonic()) > 0:
        assert looking.wait([], left_s) == []


def test_a_pause_of_a_process_is_seen_with_its_duration(engine: psutil.Process):
    looking = Pauses()
    looking.begin([os.getpid(), engine.pid])
    wait(looking, LOOK_S)
    engine.suspend()
    wait(looking, 3 * LOOK_S)
    engine.resume()
    (said,) = looking.end()
    stopped_s = float(said.removeprefix("a process of the engine was stopped for about ").removesuffix(" s"))
    assert 2 * LOOK_S < stopped_s < 60
    looking.begin([engine.pid])
    wait(looking, LOOK_S)
    assert looking.end() == []


FROZEN = """
import os, sys, time
from rollout_bench.measure.machine.readings import Pauses
looking, deadline = Pauses(), time.monotonic() + 2
looking.begin([os.getppid()])
print("looks", flush=True)
while time.monotonic() < deadline:
    looking.wait([], 2)
print(looking.end())
"""


def test_who_looks_notices_that_it_was_not_let_run_itself():
    with subprocess.Popen([sys.executable, "-c", FROZEN], stdout=subprocess.PIPE, text=True) as looks:
        assert looks.stdout.readline() == "looks\n"
        time.sleep(LOOK_S / 2)  # by now it looks
        looks.send_signal(signal.SIGSTOP)
        time.sleep(LOOK_S + LATE_S + 0.5)
        looks.send_signal(signal.SIGCONT)
        assert "['the launch as a whole was stopped or frozen for about " in looks.stdout.read()


def test_a_machine_that_was_suspended_is_told_by_its_clocks(monkeypatch: pytest.MonkeyPatch):
    looking = Pauses()
    looking.begin([os.getpid()])
    assert looking.end() == []
    looking.begin([os.getpid()])
    suspended_s = readings._suspended_s() + 60.0
    monkeypatch.setattr(readings, "_suspended_s", lambda: suspended_s)
    assert looking.end() == ["the machine was suspended for about 60.0 s"]


def test_only_a_pass_that_counts_makes_the_launch_invalid(
    engine: psutil.Process, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("ROLLOUT_BENCH_LEASES", str(tmp_path / "leases"))
    looking = Pauses()
    wanted = Wanted(tiny_spec(), tmp_path / "results/offline/tiny-00000000/launch-0.json")
    with lease(wanted, time.sleep, print) as held:
        around = Surroundings("cpu", [{}], lambda: ([group_of(engine.pid)], set()), held, looking)

        def run_pass(*, stopped: bool) -> None:
            around.before()
            if stopped:
                engine.suspend()
            wait(looking, 2 * LOOK_S)
            engine.resume()
            around.meanwhile()

        run_pass(stopped=True)
        run_pass(stopped=False)
        run_pass(stopped=True)
        assert around.flags({1}) == []
        (paused,) = around.flags({1, 2})
        assert (paused.code, paused.severity) == ("paused", "invalid")
        assert paused.sentence.startswith("During pass 2 a process of the engine was stopped for about ")
        assert around.flags(None)[0].sentence.count("During pass") == 2
        held.claim.path.unlink()
        run_pass(stopped=False)
        (lost,) = around.flags({1, 3})
        assert (lost.code, lost.severity) == ("lease_lost", "invalid")
        assert f"{held.claim.path}, before pass 3 was over" in lost.sentence
        assert around.flags({1}) == []
