"""The engine's temporary folder, and the end of processes that outlived both command and guardian.

The folder holds the engine's sockets and rendezvous files. Usually the guardian ends the engine and then removes the
folder. Both may be killed together, for example by `pkill -9 -f rollout_bench`. The engine process then ends with its
parent, but vLLM's engine core and its workers continue to compute (observed with vLLM 0.32). The next launch that holds
devices ends them first.

A launch locks a file in its folder, and its guardian inherits the lock. A folder with a free lock is left behind. Its
processes are those with the folder as TMPDIR: no other process can have it, because its name is random and in use.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rollout_bench.core.processes import SHARED_MEMORY, Group, group_of, is_living

PREFIX = "rollout-engine-"
"""Prefix of the folders' names, short because the path of a socket has at most 107 bytes."""


def _system() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()


LOCK = f".launch-{_system()}"
"""Locked file, named after the running system, because nodes may share a TMPDIR without sharing locks.

A folder without this file is left alone: it is foreign, or not finished yet.
"""

NOTED = ".shared-memory"
"""File in which the supervisor lists the engine's shared memory: killed engines leave it without a trace of its
owner."""

STUCK = ".stuck"
"""File with the processes that survived being killed: pid and start time in clock ticks since boot."""

LIMIT_S = 20.0
"""Time for killed processes to disappear, in seconds; later they count as stuck in the kernel."""

Say = Callable[[str], None]
"""Prints a line for the user."""


@dataclass(frozen=True)
class Scratch:
    """The temporary folder of an engine; it is in use while any process has `descriptor` open."""

    folder: Path
    descriptor: int


@contextlib.contextmanager
def scratch() -> Iterator[Scratch]:
    """Make a temporary folder for an engine; remove it at the end."""
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    try:
        # locked before it gets its name; otherwise another launch could treat the folder as left behind
        unnamed = folder / "new"
        descriptor = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            with contextlib.suppress(OSError):  # a file system without locks: left-behind folders are not found there
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            unnamed.rename(folder / LOCK)
            yield Scratch(folder, descriptor)
        finally:
            os.close(descriptor)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def note_shared_memory(folder: Path, paths: Iterable[Path]) -> None:
    """Write the paths of the engine's shared memory to its temporary folder."""
    (folder / NOTED).write_text("".join(f"{path}\n" for path in sorted(paths)))


def noted_shared_memory(folder: Path) -> set[Path]:
    """Return the paths of shared memory from the engine's temporary folder."""
    try:
        lines = (folder / NOTED).read_text().splitlines()
    except OSError:
        return set()
    return {Path(line) for line in lines if Path(line).parent == SHARED_MEMORY}


def end_left_behind(say: Say) -> bool:
    """End processes of this user's launches whose command and guardian were killed, and remove their files.

    Args:
        say: prints the processes that still run `LIMIT_S` seconds after they were killed. Their folder stays, so that
            the next launch finds them again. They may hold only one of several devices, so measuring continues.

    Returns:
        Whether any process was left.
    """
    found = False
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        descriptor = _taken_over(folder)
        if descriptor is not None:
            left = noted_shared_memory(folder)
            killed, stuck = _end_processes(folder)
            found = found or killed
            if stuck:
                _note_stuck(folder, stuck)
                say(
                    f"of an engine whose launch was killed still run {LIMIT_S:g} s after they were killed: processes "
                    f"{', '.join(map(str, stuck))}\n  look with `ps -o stat,wchan,args -p {stuck[0]}`: where the state "
                    "is D, the driver holds them, and only a reset of the device or a restart ends them"
                )
            else:
                remove(left)
                shutil.rmtree(folder, ignore_errors=True)
            os.close(descriptor)
    return found


def remove(paths: Iterable[Path]) -> None:
    """Remove shared memory; missing paths are ignored."""
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink()


def _taken_over(folder: Path) -> int | None:
    """Lock a left-behind folder and return the descriptor; None if it is in use or belongs to another user."""
    try:
        there = folder.lstat()
        if not stat.S_ISDIR(there.st_mode) or there.st_uid != os.getuid():
            return None
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:  # removed meanwhile, or not finished yet
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # in use, or a file system without locks
        os.close(descriptor)
        return None
    return descriptor


def _end_processes(folder: Path) -> tuple[bool, list[int]]:
    """Kill the processes of a folder; return whether there were any, and the pids of those that did not end."""
    deadline = time.monotonic() + LIMIT_S
    killed: set[int] = set()
    while True:
        pids = _processes(folder)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        killed |= set(pids)
        # Searched again after the last kill: a process may have started another one meanwhile. A dying process loses
        # its variables before it is gone, so `killed` is checked too.
        stuck = sorted(pid for pid in killed if is_living(pid))
        if (not pids and not stuck) or time.monotonic() > deadline:
            return bool(killed), stuck
        time.sleep(0.05)


def _note_stuck(folder: Path, pids: Iterable[int]) -> None:
    """Write stuck processes to the folder: a dying process loses the variables by which it is found."""
    groups = map(group_of, pids)
    (folder / STUCK).write_text("".join(f"{group.leader} {group.started}\n" for group in groups))


def _noted_stuck(folder: Path) -> list[int]:
    """Return the pids of noted processes that still live."""
    try:
        noted = [line.split() for line in (folder / STUCK).read_text().splitlines()]
    except OSError:
        return []
    groups = [Group(int(pid), int(started)) for pid, started in noted]
    return [group.leader for group in groups if group == group_of(group.leader) and is_living(group.leader)]


def _processes(folder: Path) -> list[int]:
    """Return the pids of processes with `folder` as temporary folder, and of living processes noted in it.

    psutil does not find vLLM's engine core: it reads variables only up to the first gap, and a process that sets its
    title leaves a gap.
    """
    setting = f"TMPDIR={folder}".encode()
    found = _noted_stuck(folder)
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # ended meanwhile, or owned by another user
            if setting in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found
