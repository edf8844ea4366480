"""Process groups, stop signals and the node's name.

Functions act only on groups that we started, identified by the pid and start time of their leader.
"""

import contextlib
import ctypes
import os
import re
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

PR_SET_PDEATHSIG = 1

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The signals that ask one of our processes to end."""


@dataclass(frozen=True)
class Group:
    """A session whose leader is one of our processes.

    Args:
        leader: pid of the leader, which is also the id of its process group and session.
        started: the leader's start in clock ticks since boot; it distinguishes the leader from a later process with
            the same pid.
    """

    leader: int
    started: int


def group_of(leader: int) -> Group:
    """Return the group of the process `leader`, which is running or not yet reaped."""
    return Group(leader, _stat(leader)[1])


def members_of(groups: Iterable[Group]) -> list[int]:
    """Return the pids of all living processes in the process groups and the sessions of `groups`."""
    # a leader with another start is another process: its pid was free again, so the group is gone
    leaders = {group.leader for group in groups if _stat(group.leader)[1] in (-1, group.started)}
    pids = []
    for pid in (int(entry.name) for entry in Path("/proc").glob("[0-9]*")):
        with contextlib.suppress(OSError):  # ended meanwhile
            # system calls, because reading the state of all processes takes 20 times as long
            if leaders & {os.getpgid(pid), os.getsid(pid)} and is_living(pid):
                pids.append(pid)
    return pids


SHARED_MEMORY = Path("/dev/shm")

_OF_ENGINE = re.compile(rb" /dev/shm/((?:psm_|sem\.mp-|vllm_dist_)\S+)$", re.MULTILINE)
"""Shared memory and semaphores of Python's multiprocessing, and of vLLM's workers on a CPU, which never remove theirs.
Their random names are unique to one program."""


def shared_memory_of(pids: Iterable[int]) -> set[Path]:
    """Return the paths of the engine's shared memory and semaphores that the processes have open.

    Files that remain after all these processes were killed are garbage.
    """
    names = set()
    for pid in pids:
        with contextlib.suppress(OSError):  # ended meanwhile
            names |= set(_OF_ENGINE.findall(Path(f"/proc/{pid}/maps").read_bytes()))
    return {SHARED_MEMORY / os.fsdecode(name) for name in names}


def is_living(pid: int) -> bool:
    """Return whether the process is still running; a process that is being killed counts as running."""
    return _stat(pid)[0] not in "ZX"


def is_stopped(pid: int) -> bool:
    """Return whether a signal or a debugger has stopped the process."""
    return _stat(pid)[0] in "Tt"


def end_groups(groups: Sequence[Group], grace_s: float = 10.0, limit_s: float = 60.0) -> bool:
    """End every process of all `groups`: SIGTERM, a wait of up to `grace_s` seconds, then SIGKILL until all are gone.

    Returns:
        False if processes remain after `limit_s` further seconds (stuck in the kernel), else True.
    """
    signal_groups(groups, signal.SIGTERM, signal.SIGCONT)  # a stopped process would sleep through the grace period
    begin = time.monotonic()
    while members_of(groups):
        elapsed_s = time.monotonic() - begin
        if elapsed_s > grace_s + limit_s:
            return False
        if elapsed_s > grace_s:
            signal_groups(groups, signal.SIGKILL)
        time.sleep(0.05)
    return True


def signal_groups(groups: Sequence[Group], *numbers: int) -> None:
    """Send signals to every process of all `groups`, such as SIGSTOP, so that they use no CPU time until SIGCONT."""
    for pid in members_of(groups):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            for number in numbers:
                os.kill(pid, number)


def die_with_parent(signal_number: int) -> None:
    """Ask the kernel to send `signal_number` to this process when the thread that started the process ends."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal_number, 0, 0, 0)


def _stat(pid: int) -> tuple[str, int]:
    """Return the state of a process and its start in clock ticks since boot; X (dead) and -1 if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return "X", -1
    return fields[0], int(fields[19])


class Watch:
    """Detects the end of a process without reaping it. The process need not be our child.

    Args:
        pid: the process.
        name: the process's name in messages.
    """

    def __init__(self, pid: int, name: str) -> None:
        self.pid = pid
        self.name = name
        self.descriptor: int | None = None
        """Becomes readable when the process ends. None on kernels before 5.3: call `ended` there."""
        self._started = group_of(pid).started
        with contextlib.suppress(OSError, AttributeError):
            self.descriptor = os.pidfd_open(pid)

    def ended(self) -> bool:
        """Return whether the process has ended (it may not be reaped yet)."""
        if self.descriptor is not None:
            return bool(select.select([self.descriptor], [], [], 0)[0])
        return not is_living(self.pid) or group_of(self.pid).started != self._started

    def close(self) -> None:
        """Close the descriptor."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None


def printed_by(*command: str) -> str:
    """Return the output of a vendor's tool; empty if the tool is missing or runs longer than 20 s."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


class Interrupted(Exception):  # noqa: N818 (an outcome)
    """A signal asked this process to end.

    Args:
        number: the signal.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(signal.Signals(number).name)


@contextlib.contextmanager
def signals_as_descriptor() -> Iterator[int]:
    """Yield a descriptor that delivers SIGINT, SIGTERM and SIGHUP as bytes. The signals have no other effect.

    An ignored SIGHUP (nohup) stays ignored.
    """
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    with stopping_handled_by(lambda *_: None):
        woken = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        try:
            yield reading
        finally:
            signal.set_wakeup_fd(woken)
            os.close(reading)
            os.close(writing)


@contextlib.contextmanager
def stopping_handled_by(handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Handle the signals of `STOPPING` with `handler` inside the block; an ignored SIGHUP (nohup) stays ignored."""
    ignored = {signal.SIGHUP} if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else set[int]()
    before = {number: signal.signal(number, handler) for number in STOPPING if number not in ignored}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def pause(signals: int, seconds: float) -> None:
    """Sleep for `seconds`; raise `Interrupted` when the descriptor of `signals_as_descriptor` receives a signal."""
    if select.select([signals], [], [], seconds)[0]:
        raise Interrupted(os.read(signals, 1)[0])


def node_name() -> str:
    """Return the machine's name: ROLLOUT_BENCH_NODE (for containers), else Slurm's node name, else the host name."""
    return os.environ.get("ROLLOUT_BENCH_NODE") or os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def scheduler_job() -> str | None:
    """Return the id of the scheduler's job of this process; None outside a scheduler.

    The id is Slurm's, else ROLLOUT_BENCH_JOB, else the name of the pod. Our Kubernetes manifests set ROLLOUT_BENCH_JOB,
    because a Job may start several pods one after another.
    """
    in_pod = os.environ.get("KUBERNETES_SERVICE_HOST") is not None
    known = os.environ.get("SLURM_JOB_ID") or os.environ.get("ROLLOUT_BENCH_JOB")
    return known or (os.environ.get("HOSTNAME") if in_pod else None)
