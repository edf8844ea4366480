"""Devices are held by one launch at a time, for as long as it lives, and everybody's turn comes."""

from __future__ import annotations

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
from contender import Cannot, hold, made_devices, no_waiting
from hypothesis import given
from hypothesis import strategies as st

from rollout_bench.core.errors import UserError
from rollout_bench.core.processes import Interrupted, pause, signals_as_descriptor
from rollout_bench.measure.machine import device_memory, leases
from rollout_bench.measure.machine.leases import Claim, Claims

CONTENDER = Path(__file__).parents[1] / "contender.py"


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
    running = [
        subprocess.Popen([sys.executable, CONTENDER, tmp_path / "leases", log, "3", *kind], stderr=subprocess.PIPE)
        for kind in kinds
    ]
    for process in running:
        _, errors = process.communicate(timeout=60)
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


def test_devices_are_free_again_afterwards_also_after_an_error(tmp_path: Path):
    with contextlib.suppress(ZeroDivisionError), hold(tmp_path, 1, 1):
        assert not is_free(tmp_path)
        raise ZeroDivisionError
    assert is_free(tmp_path)


def test_an_exclusive_launch_waits_for_all_others_and_all_others_for_it(tmp_path: Path):
    with hold(tmp_path, 4, 1):
        with pytest.raises(Cannot), hold(tmp_path, 4, 1, "exclusive", pause=no_waiting):
            pass
        assert is_free(tmp_path, 4)
    with hold(tmp_path, 4, 1, "exclusive"):
        assert not is_free(tmp_path, 4)


# --- everybody's turn comes ---


def test_who_wants_all_devices_is_not_overtaken_by_those_who_want_one(tmp_path: Path):
    served: list[str] = []
    stop = threading.Event()

    def greedy(name: str) -> None:
        while not stop.is_set():
            with hold(tmp_path, 3, 1, name=name):
                served.append(name)
                time.sleep(0.01)

    def big() -> None:
        with hold(tmp_path, 3, 3, name="big"):
            served.append("big")

    small = [threading.Thread(target=greedy, args=(f"small-{n}",)) for n in range(4)]
    for thread in small:
        thread.start()
    time.sleep(0.2)
    before = len(served)
    wants_all = threading.Thread(target=big)
    wants_all.start()
    wants_all.join(timeout=20)
    stop.set()
    for thread in small:
        thread.join(timeout=20)
    assert "big" in served
    assert served.index("big") - before <= 8, "more were served before it than had come before it"


CLAIMS = st.builds(
    Claim,
    name=st.just("x"),
    results=st.just("r"),
    pid=st.just(1),
    since=st.just(""),
    isolation=st.sampled_from(["exclusive", "per_device"]),
    wants=st.lists(st.sampled_from("abcd"), unique=True),
    holds=st.none() | st.lists(st.sampled_from("abcd"), unique=True),
)


@given(CLAIMS, st.lists(CLAIMS, max_size=4), st.lists(CLAIMS, max_size=4))
def test_nobody_waits_for_who_came_later_and_holds_nothing(own: Claim, earlier: list[Claim], later: list[Claim]):
    obstacles = leases.in_the_way(own, earlier, later)
    assert all(claim.holds is not None for claim in obstacles if claim not in earlier)
    for claim in earlier:
        if claim.holds is None and set(claim.wants) & set(own.wants):
            assert claim in obstacles
    for claim in (*earlier, *later):
        if claim.holds is not None and "exclusive" in (claim.isolation, own.isolation):
            assert claim in obstacles


def test_who_wants_other_devices_is_not_held_up(tmp_path: Path):
    claims = Claims(tmp_path)
    claim = Claim(name="w", results="", pid=1, since="", isolation="per_device", wants=["other"])
    with claims.alone(time.sleep):
        own = claims.enter(claim)
    assert is_free(tmp_path)
    own.write(claim.model_copy(update={"wants": ["d0"]}))
    assert not is_free(tmp_path)
    own.give_back()


# --- kill -9 ---

HOLDER = """
import subprocess, sys, time
from pathlib import Path
sys.path[:0] = [{tests!r}]
from contender import hold
with hold(Path({folder!r}), 2, 1) as got:
    guardian = subprocess.Popen(["sleep", "60"], pass_fds=[got.own.descriptor])
    print(guardian.pid, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def killed(tmp_path: Path):
    """The pid of a process that inherited the lease of a holder that was killed."""
    code = HOLDER.format(tests=str(CONTENDER.parent), folder=str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        guardian = int(holder.stdout.readline())
        holder.kill()
    yield guardian
    with contextlib.suppress(ProcessLookupError):
        os.kill(guardian, signal.SIGKILL)


def test_a_lease_lasts_as_long_as_whoever_inherited_it_and_no_longer(tmp_path: Path, killed: int):
    assert is_free(tmp_path, 2)
    assert not is_free(tmp_path, 2, wanted=2)
    os.kill(killed, signal.SIGKILL)
    began = time.monotonic()
    with hold(tmp_path, 2, 2) as got:
        assert got.left_over, "nobody saw to the memory of what the killed launch held"
    assert time.monotonic() - began < 2
    with hold(tmp_path, 2, 2) as got:
        assert not got.left_over


def test_who_was_killed_while_it_waited_is_in_nobody_s_way(tmp_path: Path):
    with hold(tmp_path, 1, 1):
        waits = subprocess.Popen([sys.executable, CONTENDER, tmp_path, "/dev/null", "1", "1", "1"])
        while len(list(tmp_path.iterdir())) < 2:
            time.sleep(0.01)
        waits.kill()
        waits.wait()
    with hold(tmp_path, 1, 1) as got:
        assert not got.left_over
        assert len(list(tmp_path.iterdir())) == 1


def test_the_memory_of_a_killed_launch_is_waited_for_and_not_for_ever():
    device, said = made_devices(1), [{1, 2}, {2}, set()]
    naps: list[float] = []
    assert device_memory.wait_until_free("cuda", device, naps.append, holders=lambda *_: said.pop(0))
    assert len(naps) == 2
    assert not device_memory.wait_until_free("cuda", device, naps.append, limit_s=0, holders=lambda *_: {1})


# --- waiting ---


def test_the_wait_says_once_who_holds_what(tmp_path: Path):
    said: list[str] = []
    with hold(tmp_path, 1, 1, name="offline/holder/launch-3"):
        naps = iter(range(8))

        def nap(seconds: float) -> None:
            next(naps)

        with pytest.raises(RuntimeError), hold(tmp_path, 1, 1, said=said, pause=nap):
            pass
    assert len(said) == 1
    assert f"offline/holder/launch-3 holds d0 (pid {os.getpid()}, since now)" in said[0]


def test_a_signal_ends_the_wait_at_once(tmp_path: Path):
    with hold(tmp_path, 1, 1), signals_as_descriptor() as signals:
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
        began = time.monotonic()
        with pytest.raises(Interrupted), hold(tmp_path, 1, 1, pause=lambda seconds: pause(signals, max(seconds, 5))):
            pass
        assert time.monotonic() - began < 2
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_used_is_told_in_two_lines(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="can't be used for device leases") as error:
        Claims(tmp_path / "file" / "leases")
    assert "ROLLOUT_BENCH_LEASES" in error.value.remedy


def test_every_user_of_the_node_may_use_the_folder_and_clear_away_what_is_in_it(tmp_path: Path):
    Claims(tmp_path / "leases")
    assert (tmp_path / "leases").stat().st_mode & 0o7777 == 0o777
    with hold(tmp_path / "leases", 1, 1) as got:
        assert got.own.path.stat().st_mode & 0o777 == 0o666
