"""Devices are held by one launch at a time, for as long as it lives."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from itertools import combinations
from pathlib import Path

import pytest
from contender import Cannot, hold, no_waiting

from rollout_bench.core.processes import Interrupted, pause, signals_as_descriptor
from rollout_bench.measure.machine import inventory
from rollout_bench.measure.machine.leases import check_folder

CONTENDER = Path(__file__).parents[2] / "fixtures" / "contender.py"


def names(got) -> list[str]:
    return [device.name for group in got.groups for device in group]


def is_free(folder: Path, count: int = 1, wanted: int = 1) -> bool:
    try:
        with hold(folder, count, wanted, pause=no_waiting):
            return True
    except Cannot:
        return False


# --- one holder at a time ---


def test_many_processes_never_hold_one_device_twice(tmp_path: Path):
    log = tmp_path / "log"
    kinds = [["1", "20"], ["1", "20"], ["2", "15"], ["3", "10"], ["1", "5", "exclusive"]]
    waits, starts = os.pipe()
    running = [
        subprocess.Popen(
            [sys.executable, CONTENDER, tmp_path / "leases", log, "3", *kind],
            stdin=waits,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for kind in kinds
    ]
    for process in running:
        assert process.stdout is not None
        process.stdout.readline()  # by the last one's all have imported, so none is done before another begins
    os.close(waits)
    os.close(starts)
    for process in running:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors.decode()
    held = [line.split() for line in log.read_text().splitlines()]
    assert len(held) == 70
    for one, other in combinations(held, 2):
        meanwhile = int(one[0]) < int(other[1]) and int(other[0]) < int(one[1])
        shared = set(one[3].split(",")) & set(other[3].split(","))
        assert not (meanwhile and (shared or "exclusive" in (one[2], other[2]))), (one, other)
    assert any(int(one[0]) < int(other[1]) and int(other[0]) < int(one[1]) for one, other in combinations(held, 2)), (
        "nothing ran side by side"
    )
    assert list((tmp_path / "leases").iterdir()) == []


def test_a_launch_takes_whatever_devices_are_free(tmp_path: Path):
    with hold(tmp_path, 3, 1) as one, hold(tmp_path, 3, 2) as others:
        assert names(one) + names(others) == ["d0", "d1", "d2"]
        assert not is_free(tmp_path, 3)


def test_a_living_claim_of_another_version_keeps_everybody_away(tmp_path: Path):
    with hold(tmp_path, 2, 1) as got:
        got.claim.path.write_text('{"name": "x", "held by": ["d0"]}')
        said: list[str] = []
        with pytest.raises(Cannot), hold(tmp_path, 2, 1, said=said, pause=no_waiting):
            pass
        assert "a launch of another version" in said[0]


def test_an_exclusive_launch_and_all_others_wait_for_each_other(tmp_path: Path):
    with hold(tmp_path, 4, 1):
        with pytest.raises(Cannot), hold(tmp_path, 4, 1, "exclusive", pause=no_waiting):
            pass
        assert is_free(tmp_path, 4)
    with hold(tmp_path, 4, 1, "exclusive"):
        assert not is_free(tmp_path, 4)


# --- kill -9 ---

HOLDER = """
import subprocess, sys, time
from pathlib import Path
sys.path[:0] = [{tests!r}]
from contender import hold
with hold(Path({folder!r}), 2, 1) as got:
    guardian = subprocess.Popen(["sleep", "60"], pass_fds=[got.descriptor])
    print(guardian.pid, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def killed(tmp_path: Path):
    """Yield the pid of a process that inherited the lease of a holder that was killed."""
    code = HOLDER.format(tests=str(CONTENDER.parent), folder=str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        guardian = int(holder.stdout.readline())
        holder.kill()
    yield guardian
    with contextlib.suppress(ProcessLookupError):
        os.kill(guardian, signal.SIGKILL)


def test_a_lease_lasts_until_its_last_inheritor_has_ended(tmp_path: Path, killed: int):
    assert is_free(tmp_path, 2)
    assert not is_free(tmp_path, 2, wanted=2)
    os.kill(killed, signal.SIGKILL)
    with hold(tmp_path, 2, 2) as got:
        assert got.left_over, "nobody saw to the memory of what the killed launch held"
    with hold(tmp_path, 2, 2) as got:
        assert not got.left_over


WAITER = """
import sys
from pathlib import Path
sys.path[:0] = [{tests!r}]
from contender import hold
class Said(list):
    def append(self, text):
        print(text, flush=True)
with hold(Path({folder!r}), 1, 1, said=Said()):
    pass
"""


def test_who_was_killed_while_it_waited_leaves_nothing(tmp_path: Path):
    code = WAITER.format(tests=str(CONTENDER.parent), folder=str(tmp_path))
    with hold(tmp_path, 1, 1):
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as waits:
            assert waits.stdout is not None
            assert waits.stdout.readline().startswith("waiting for devices: offline/a/launch-0 holds d0")
            waits.kill()
        assert len(list(tmp_path.iterdir())) == 1
    with hold(tmp_path, 1, 1) as got:
        assert not got.left_over


def test_a_wait_for_a_killed_launchs_memory_is_bounded():
    said = [{1, 2}, {2}, set()]
    naps: list[float] = []
    assert inventory.wait_until_free(lambda: said.pop(0), naps.append)
    assert len(naps) == 2
    assert not inventory.wait_until_free(lambda: {1}, naps.append, limit_s=0)


# --- waiting ---


def test_a_signal_ends_the_wait_at_once(tmp_path: Path):
    with hold(tmp_path, 1, 1), signals_as_descriptor() as signals:
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
        began = time.monotonic()
        with pytest.raises(Interrupted), hold(tmp_path, 1, 1, pause=lambda seconds: pause(signals, max(seconds, 100))):
            pass
        assert time.monotonic() - began < 60
    assert list(tmp_path.iterdir()) == []


def test_every_user_may_use_and_clear_the_lease_folder(tmp_path: Path):
    check_folder(tmp_path / "leases")
    assert (tmp_path / "leases").stat().st_mode & 0o7777 == 0o777
    with hold(tmp_path / "leases", 1, 1) as got:
        assert got.claim.path.stat().st_mode & 0o777 == 0o666
