"""Who belongs to a session that is to be ended: also who left the process group, nobody who has ended."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from rollout_bench.core.processes import group_of, members

LEADER = """
import os, subprocess, sys
apart = subprocess.Popen(["sleep", "60"], preexec_fn=os.setpgrp)
ended = subprocess.Popen(["true"])
away = subprocess.Popen(["sleep", "60"], start_new_session=True)
os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
print(apart.pid, ended.pid, away.pid, flush=True)
sys.stdin.read()
for process in (apart, away):
    process.kill()
"""


@pytest.fixture
def session() -> Iterator[tuple[int, int, int, int]]:
    """Yield pids of a leader, and of its children: in a process group of its own, ended, in a session of its own."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", LEADER], text=True, start_new_session=True, **pipes) as leader:
        apart, ended, away = map(int, leader.stdout.readline().split())
        yield leader.pid, apart, ended, away
        leader.communicate("")


def test_a_session_keeps_who_left_its_group_but_no_dead(session: tuple[int, int, int, int]) -> None:
    leader, apart, _ended, _away = session
    assert sorted(members(group_of(leader))) == sorted([leader, apart])
