"""The engine's temporary folder, and the end of what outlived command and guardian.

The folder takes the engine's sockets and rendezvous files. Usually the guardian removes it, once it has ended the
engine. Where somebody killed both at once (`pkill -9 -f rollout_bench` does), the engine process ends with its parent,
but vLLM's engine core and its workers go on computing (ran, vLLM 0.32: for as long as one looked). So whoever holds
devices next ends them first.

A launch locks a file in its folder, and its guardian inherits the lock. A folder whose lock is free is left behind. Its
processes are those that have it as TMPDIR: its name is random and it is still there, so nobody else can have it.
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
"""Of the folders' names. Short: the path of a socket has at most 107 bytes."""


def _system() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()


LOCK = f".launch-{_system()}"
"""The locked file, named after the running system: where nodes share a TMPDIR, locks may be of one node only.

A folder without it is none of ours, or is just being made: it is left alone.
"""

NOTED = ".shared-memory"
"""The file in which the supervisor notes the engine's shared memory: killed engines leave it, and nobody can tell whose
it was."""

STUCK = ".stuck"
"""The file that notes which processes did not end when they were killed: pids, and starts in clock ticks since boot."""

LIMIT_S = 20.0
"""How long killed processes may take to be gone; longer they are stuck inside the kernel."""

Say = Callable[[str], None]
"""Takes a line for the user."""


@dataclass(frozen=True)
class Scratch:
    """The temporary folder of an engine; it is in use for as long as anybody has `descriptor` open."""

    folder: Path
    descriptor: int


@contextlib.contextmanager
def scratch() -> Iterator[Scratch]:
    """Make a temporary folder for an engine and remove it in the end."""
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    try:
        # locked before it gets its name, or somebody could take the folder for left behind
        unnamed = folder / "new"
        descriptor = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            with contextlib.suppress(OSError):  # a file system that locks nothing: nothing left behind is found then
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            unnamed.rename(folder / LOCK)
            yield Scratch(folder, descriptor)
        finally:
            os.close(descriptor)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def note_shared_memory(folder: Path, paths: Iterable[Path]) -> None:
    """Note in the engine's temporary folder what shared memory is the engine's."""
    (folder / NOTED).write_text("".join(f"{path}\n" for path in sorted(paths)))


def noted_shared_memory(folder: Path) -> set[Path]:
    """Return what was noted in the engine's temporary folder."""
    try:
        lines = (folder / NOTED).read_text().splitlines()
    except OSError:
        return set()
    return {Path(line) for line in lines if Path(line).parent == SHARED_MEMORY}


def end_left_behind(say: Say) -> bool:
    """End the processes of this user's launches whose command and guardian were killed, and remove what they left.

    Args:
        say: is told of processes that are not gone `LIMIT_S` seconds after they were killed. Their folder stays, so
            that the next launch finds them again: they may hold one of several devices, and others can be measured on.

    Returns:
        Whether a process was left.
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
    """Remove shared memory; what is gone already is no error."""
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink()


def _taken_over(folder: Path) -> int | None:
    """Take the lock of a folder that is left behind and return its descriptor; None where it is in use or not ours."""
    try:
        there = folder.lstat()
        if not stat.S_ISDIR(there.st_mode) or there.st_uid != os.getuid():
            return None
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:  # gone meanwhile, or being made
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # in use, or on a file system that locks nothing: then nobody can tell
        os.close(descriptor)
        return None
    return descriptor


def _end_processes(folder: Path) -> tuple[bool, list[int]]:
    """Kill the processes of a folder; return whether there was one, and the pids of those that do not go."""
    deadline = time.monotonic() + LIMIT_S
    killed: set[int] = set()
    while True:
        pids = _processes(folder)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        killed |= set(pids)
        # Looked again after the last kill: a process may have started another since it was seen. And one that is being
        # killed loses its variables before it is gone.
        stuck = sorted(pid for pid in killed if is_living(pid))
        if (not pids and not stuck) or time.monotonic() > deadline:
            return bool(killed), stuck
        time.sleep(0.05)


def _note_stuck(folder: Path, pids: Iterable[int]) -> None:
    """Note processes by which the folder is found no more: one that is being killed loses its variables at once."""
    groups = map(group_of, pids)
    (folder / STUCK).write_text("".join(f"{group.leader} {group.started}\n" for group in groups))


def _noted_stuck(folder: Path) -> list[int]:
    """Return the pids of those that are still there."""
    try:
        noted = [line.split() for line in (folder / STUCK).read_text().splitlines()]
    except OSError:
        return []
    groups = [Group(int(pid), int(started)) for pid, started in noted]
    return [group.leader for group in groups if group == group_of(group.leader) and is_living(group.leader)]


def _processes(folder: Path) -> list[int]:
    """Return the pids of the processes whose temporary folder is `folder`, and of those that were noted in it.

    Not by psutil, which finds none of vLLM's engine core: it reads variables up to the first gap only, and a process
    that gives itself a title leaves one.
    """
    setting = f"TMPDIR={folder}".encode()
    found = _noted_stuck(folder)
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # ended meanwhile, or another user's
            if setting in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found
