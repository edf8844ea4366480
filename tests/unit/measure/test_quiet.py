"""A busy machine is told of before anything is measured: who uses it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from rollout_bench.measure.machine.host import Reading
from rollout_bench.measure.machine.quiet import User, tell_users, use_between

BURNING = "import os\nfor _ in range(os.cpu_count() - 1):\n    if os.fork() == 0: break\nwhile True: pass"


def reading(moment: float, busy: int, own: int, others: dict[tuple[int, int], tuple[str, int]]) -> Reading:
    return Reading(moment, 2, busy, 0, 200 + int(100 * moment), own, others, None, None, None, None)


def test_what_others_used_is_told_busiest_first_and_without_the_launchs_own() -> None:
    before = reading(0, 0, 0, {(1, 0): ("make", 10), (2, 0): ("cc1", 5)})
    after = reading(1, 90, 30, {(1, 0): ("make", 20), (2, 0): ("cc1", 45), (3, 9): ("ld", 10)})
    use = use_between(before, after)
    assert use.share == pytest.approx(0.6)
    assert [(user.pid, user.share) for user in use.users] == [(2, 0.4), (1, 0.1), (3, 0.1)]


STARTS = (
    "import subprocess, sys\n"
    "child = subprocess.Popen([sys.executable, '-c', sys.argv[1]], start_new_session=True,"
    " stdout=subprocess.DEVNULL)\n"
    "print(child.pid, flush=True)"
)


@pytest.fixture
def burning() -> Iterator[int]:
    """Start processes that use all cores, in a session of its own and nobody's children; give the pid of the first."""
    done = subprocess.run([sys.executable, "-c", STARTS, BURNING], stdout=subprocess.PIPE, check=True, timeout=120)
    leader = int(done.stdout)
    try:
        time.sleep(1.0)
        yield leader
    finally:
        os.killpg(leader, signal.SIGKILL)


def test_who_uses_the_cores_is_named_with_pid_user_and_command(burning: int) -> None:
    said: list[str] = []
    tell_users(time.sleep, said.append)
    (line,) = said
    assert line.startswith("others use ")
    assert "\n" not in line
    # beside other tests others may be busier
    assert f"{psutil.Process().username()}: " in line
    named = str(User(burning, "python", 0.5))
    assert named.startswith(f"python (pid {burning}, 50 %, {psutil.Process().username()}: ")
