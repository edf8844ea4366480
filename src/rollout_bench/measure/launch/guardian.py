"""The guardian: a small process that outlives the supervisor and ends the engine's process groups.

The guardian holds the read end of a pipe. When the supervisor ends, even by kill -9, the kernel closes the write end.
The guardian then ends all registered groups and removes the engine's temporary folder, which holds the engine's sockets
and rendezvous files. This file has both sides of the pipe.

Both may be killed together, for example by `pkill -9 -f rollout_bench`. The engine process then ends with its parent,
but vLLM's engine core and its workers continue to compute (observed with vLLM 0.32). The next launch that holds devices
ends them first: a launch locks a file in its folder, and its guardian inherits the lock. A folder with a free lock is
left behind. Its processes are those with the folder as TMPDIR, or with its mark: no other process can have either,
because its name is random and in use.
"""

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import IO

from rollout_bench.core.processes import (
    SHARED_MEMORY,
    STOPPING,
    Group,
    Watch,
    end_groups,
    group_of,
    is_living,
    members_of,
    shared_memory_of,
)

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
"""File with the processes that survived being killed."""

LIMIT_S = 20.0
"""Time for killed processes to disappear, in seconds; later they count as stuck in the kernel."""


@contextlib.contextmanager
def scratch() -> Iterator[tuple[Path, int]]:
    """Make a temporary folder for an engine; remove it at the end.

    Yields:
        The folder, and a descriptor: the folder is in use while any process has it open.
    """
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    try:
        # locked before it gets its name; otherwise another launch could treat the folder as left behind
        unnamed = folder / "new"
        with unnamed.open("w") as lock:
            with contextlib.suppress(OSError):  # a file system without locks: left-behind folders are not found there
                fcntl.flock(lock, fcntl.LOCK_EX)
            unnamed.rename(folder / LOCK)
            yield folder, lock.fileno()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Guardian:
    """The supervisor's handle on its guardian.

    Args:
        log: file for the guardian's output; a terminal or a pipe of the caller would be kept open.
        environment: environment with a PYTHONPATH that includes this package.
        folder: the engine's temporary folder.
        keep_open: descriptors that the guardian keeps open until it has ended the groups.
    """

    def __init__(
        self, log: IO[bytes], environment: dict[str, str], folder: Path, keep_open: Sequence[int] = ()
    ) -> None:
        self._log = log
        self._environment = environment
        self._folder = folder
        self._keep_open = keep_open
        self._groups: list[Group] = []
        self._process = self._start()
        self.watched = Watch(self._process.pid, "guardian")
        """Watch on the current guardian."""

    @property
    def pid(self) -> int:
        """Pid of the current guardian."""
        return self._process.pid

    def watch(self, group: Group) -> None:
        """Register `group`, to be ended when this process ends or calls `end`."""
        self._groups.append(group)
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # dead already: its pidfd shows it
            self._process.stdin.write(f"{_written(group)}\n".encode())
            self._process.stdin.flush()

    def note_shared_memory(self) -> None:
        """Record the shared memory of the groups, so that it is removed even if all processes are killed together."""
        paths = sorted(shared_memory_of(members_of(self._groups)))
        (self._folder / NOTED).write_text("".join(f"{path}\n" for path in paths))

    def replace_if_dead(self) -> None:
        """Start another guardian if the current one is dead."""
        if self._process.poll() is not None:
            self.begin_end()
            self.watched.close()
            self._process = self._start()
            self.watched = Watch(self._process.pid, "guardian")

    def begin_end(self) -> None:
        """Let the guardian begin to end the groups, without waiting."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()

    def end(self) -> None:
        """End the groups, in this process if the guardian is dead."""
        self.begin_end()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=90)
        self.watched.close()
        clean_up(self._groups, self._folder)

    def _start(self) -> subprocess.Popen[bytes]:
        # The groups are on the command line because this process may be killed before it writes them to the pipe.
        # The guardian would then end nothing and remove the folder that the next launch needs to find the processes.
        return subprocess.Popen(
            [sys.executable, "-S", "-m", __name__, *map(_written, self._groups), str(self._folder)],
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
            env=self._environment,
            pass_fds=self._keep_open,
            start_new_session=True,
        )


def mark(folder: Path) -> None:
    """Mark this process, and those that it forks, as processes of `folder`.

    A process that was forked shows the variables of the program that forked it, so not its own TMPDIR.
    """
    with contextlib.suppress(OSError):
        os.memfd_create(folder.name)


def clean_up(groups: Sequence[Group], folder: Path) -> None:
    """End `groups`, and remove their shared memory and `folder`."""
    shared = shared_memory_of(members_of(groups))
    end_groups(groups)
    _remove(folder, shared)


def end_left_behind(say: Callable[[str], None]) -> bool:
    """End processes of this user's launches whose command and guardian were killed, and remove their files.

    Args:
        say: prints the processes that still run `LIMIT_S` seconds after they were killed. Their folder stays, so that
            the next launch finds them again. They may hold only one of several devices, so measuring continues.

    Returns:
        Whether any process was left.
    """
    has_killed = False
    for folder in _left_behind():
        killed, stuck = _end_processes(folder)
        has_killed = has_killed or killed
        if stuck:
            # a dying process loses the variables by which it is found
            (folder / STUCK).write_text("\n".join(_written(group_of(pid)) for pid in stuck))
            say(
                f"of an engine whose launch was killed still run {LIMIT_S:g} s after they were killed: processes "
                f"{', '.join(map(str, stuck))}\n  look with `ps -o stat,wchan,args -p {stuck[0]}`: where the state "
                "is D, the driver holds them, and only a reset of the device or a restart ends them"
            )
        else:
            _remove(folder)
    return has_killed


def _written(group: Group) -> str:
    return f"{group.leader}:{group.started}"


def _read(lines: Iterable[str]) -> list[Group]:
    return [Group(*map(int, line.split(":"))) for line in lines]


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _remove(folder: Path, shared: Iterable[Path] = ()) -> None:
    """Remove the folder, the shared memory that is noted in it, and `shared`."""
    noted = (path for line in _lines(folder / NOTED) if (path := Path(line)).parent == SHARED_MEMORY)
    for path in {*shared, *noted}:
        with contextlib.suppress(OSError):
            path.unlink()
    shutil.rmtree(folder, ignore_errors=True)


def _left_behind() -> Iterator[Path]:
    """Yield each of this user's folders that no launch uses, locked until the next one."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # in use, removed meanwhile, not finished yet, or without locks
            status = folder.lstat()
            if stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid():
                with open(os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW)) as lock:  # noqa: PTH123 (no link)
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    yield folder


def _end_processes(folder: Path) -> tuple[bool, list[int]]:
    """Kill the processes of a folder; return whether there were any, and the pids of those that did not end."""
    deadline = time.monotonic() + LIMIT_S
    killed: set[int] = set()
    while True:
        pids = processes_in(folder)
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


def processes_in(folder: Path) -> list[int]:
    """Return the pids of processes with `folder` as temporary folder or mark, and of living processes noted in it.

    psutil does not find vLLM's engine core: it reads variables only up to the first gap, and a process that sets its
    title leaves a gap.
    """
    setting, marked = f"TMPDIR={folder}".encode(), f"/memfd:{folder.name} (deleted)"
    stuck = _read(_lines(folder / STUCK))
    pids = [group.leader for group in stuck if group == group_of(group.leader) and is_living(group.leader)]
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # ended meanwhile, or owned by another user
            if setting in (entry / "environ").read_bytes().split(b"\0") or marked in _open_in(entry):
                pids.append(int(entry.name))
    return pids


def _open_in(process: Path) -> Iterator[str]:
    """Yield what each descriptor of a process refers to."""
    for descriptor in (process / "fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            yield str(descriptor.readlink())


def main() -> None:
    """Read `<leader>:<start>` of each group from the command line and stdin; clean up after them at end of file."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
    os.chdir("/")
    *known, folder = sys.argv[1:]
    clean_up(_read(chain(known, sys.stdin)), Path(folder))


if __name__ == "__main__":
    main()
