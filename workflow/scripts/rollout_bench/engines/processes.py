"""Process groups: who belongs to one, and how it is ended.

Only groups that we started ourselves are ever named here, by the pid and start time of their leader.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Group:
    """A session that a process of ours leads.

    Args:
        leader: pid of the leader, which is also the id of its process group and session.
        started: the leader's start in clock ticks since boot; tells it from a later process of the same pid.
    """

    leader: int
    started: int


@dataclass(frozen=True)
class _Stat:
    state: str
    group: int
    session: int
    started: int


def group_of(leader: int) -> Group:
    """The group that the running (or not yet reaped) process `leader` leads."""
    stat = _stat(leader)
    return Group(leader, stat.started if stat is not None else -1)


def members(group: Group) -> list[int]:
    """Pids of the living processes of `group`, those included that left the process group but not the session."""
    leader = _stat(group.leader)
    if leader is not None and leader.started != group.started:
        return []  # the group is gone and its number belongs to somebody else
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        stat = _stat(int(entry.name))
        if stat is not None and group.leader in (stat.group, stat.session) and stat.state not in "ZX":
            found.append(int(entry.name))
    return found


def members_of(groups: Sequence[Group]) -> list[int]:
    """Pids of the living processes of all `groups`."""
    return [pid for group in groups for pid in members(group)]


def is_stopped(pid: int) -> bool:
    """Return whether somebody stopped the process, by a signal or with a debugger."""
    stat = _stat(pid)
    return stat is not None and stat.state in "Tt"


def end_groups(groups: Sequence[Group], grace_s: float = 10.0, limit_s: float = 60.0) -> bool:
    """Ends every process of all `groups`: SIGTERM, up to `grace_s` seconds of waiting, SIGKILL until none is left.

    Returns:
        False if processes were left after `limit_s` further seconds (stuck inside the kernel), else True.
    """
    for pid in members_of(groups):
        _send(pid, signal.SIGTERM)
        _send(pid, signal.SIGCONT)  # a stopped process would sleep through the grace period
    if _wait_until_gone(groups, grace_s):
        return True
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        for pid in members_of(groups):
            _send(pid, signal.SIGKILL)
        if _wait_until_gone(groups, 0.5):
            return True
    return False


def die_with_parent(signal_number: int) -> None:
    """Has the kernel send `signal_number` to this process when the thread that started it ends."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal_number, 0, 0, 0)


def _wait_until_gone(groups: Sequence[Group], limit_s: float) -> bool:
    deadline = time.monotonic() + limit_s
    pause_s = 0.02
    while members_of(groups):
        if time.monotonic() >= deadline:
            return False
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, 0.2)
    return True


def _send(pid: int, signal_number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal_number)


def _stat(pid: int) -> _Stat | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return _Stat(state=fields[0], group=int(fields[2]), session=int(fields[3]), started=int(fields[19]))


class Watch:
    """Notices the end of a process, our child or not, without reaping it.

    Args:
        pid: the process.
        name: what it is, for messages.
    """

    def __init__(self, pid: int, name: str) -> None:
        self.pid = pid
        self.name = name
        self.descriptor: int | None = None
        """Becomes readable when the process ends; None on kernels before 5.3, where `ended` has to be asked."""
        self._started = group_of(pid).started
        with contextlib.suppress(OSError, AttributeError):
            self.descriptor = os.pidfd_open(pid)

    def ended(self) -> bool:
        """Whether the process has ended (it may not be reaped yet)."""
        if self.descriptor is not None:
            return bool(select.select([self.descriptor], [], [], 0)[0])
        stat = _stat(self.pid)
        return stat is None or stat.started != self._started or stat.state in "ZX"

    def close(self) -> None:
        """Gives the descriptor back."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None


def printed_by(*command: str) -> str:
    """What a vendor's tool prints; empty where there is no such tool, or where it hangs for 20 s."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
