"""Who belongs to a session that is to be ended, also without its process group, and who heeds no SIGTERM is killed."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from rollout_bench.core.processes import end_groups, group_of, members_of

LEADER = """
import os, signal, subprocess, sys

def leave():
    os.setpgrp()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)

apart = subprocess.Popen(["sleep", "60"], preexec_fn=leave)
ended = subprocess.Popen(["true"])
away = subprocess.Popen(["cat"], start_new_session=True)  # ends with stdin
os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
print(apart.pid, ended.pid, away.pid, flush=True)
sys.stdin.read()
for process in (apart, away):
    process.kill()
"""


@pytest.fixture
def session() -> Iterator[tuple[int, int, int, int]]:
    """Yield pids of a leader, and of its children: in a process group of its own, ended, in a session of its own."""
    with subprocess.Popen(
        [sys.executable, "-c", LEADER],
        text=True,
        start_new_session=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as leader:
        apart, ended, away = map(int, leader.stdout.readline().split())
        yield leader.pid, apart, ended, away
        leader.communicate("")


def test_a_session_keeps_who_left_its_group_but_no_dead(session: tuple[int, int, int, int]) -> None:
    leader, apart, _ended, _away = session
    assert sorted(members_of([group_of(leader)])) == sorted([leader, apart])


def test_a_member_that_heeds_no_sigterm_is_killed(session: tuple[int, int, int, int]) -> None:
    assert end_groups([group_of(session[0])], grace_s=0.2)
    assert members_of([group_of(session[0])]) == []
