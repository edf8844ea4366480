"""One engine process, or the process of one replica or rank: orders to it, its events, and its end."""

import contextlib
import os
import select
import subprocess
import sys
import time
from collections.abc import Set
from pathlib import Path

from rollout_bench.contracts.failures import Cause
from rollout_bench.core.processes import Group, Watch, group_of
from rollout_bench.measure.launch.protocol import Event, PhaseBegins, Ready, parse
from rollout_bench.measure.launch.starter import Forked

LOG_TAIL_BYTES = 400_000


def start_process(
    module: str,
    environment: dict[str, str],
    cores: Set[int] | None,
    log: Path,
    line: int | None = None,
    starter: Path | None = None,
) -> "EngineProcess":
    """Start an engine process in its own session; it does nothing before its first order, which is its job.

    Args:
        module: the engine process's module, run with `python -m`.
        environment: environment of the process.
        cores: cores that the process may use; None for all.
        log: file for the engine's output.
        line: descriptor of the inherited socket to the router; None without a router.
        starter: socket of the starter that forks the engine; None, or one that is gone, starts a new program.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC)
    process: subprocess.Popen[bytes] | Forked | None = None
    try:
        inherited = [writing, *([] if line is None else [line])]
        with log.open("ab") as output:
            if starter is not None:
                with contextlib.suppress(OSError):  # it was killed, was idle for too long or hangs: a plain start
                    process = Forked(starter, module, environment, output.fileno(), inherited)
                    line = next(iter(process.descriptors[1:]), None)
            process = process or subprocess.Popen(
                [sys.executable, "-m", module, str(writing)],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=environment,
                pass_fds=inherited,
                start_new_session=True,
            )
    except BaseException:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    if cores:
        with contextlib.suppress(ProcessLookupError):  # ended already: its pidfd shows it
            os.sched_setaffinity(process.pid, cores)  # before the job arrives, so before other threads exist
    return EngineProcess(process, reading, log, line)


class EngineProcess:
    """An engine process in its own session.

    Args:
        process: the process, whose standard input takes orders.
        pipe: descriptor that becomes readable when the process sends an event.
        log: file with the engine's output.
        line: descriptor, in the engine process, of the socket to the router; None without a router.
    """

    def __init__(self, process: subprocess.Popen[bytes] | Forked, pipe: int, log: Path, line: int | None) -> None:
        self.pipe, self.log, self.line = pipe, log, line
        self.phase = "starting"
        self.child_ended: tuple[str, float] | None = None
        """Name of the engine's child process that ended first, and the time, on the monotonic clock."""
        self.lost: tuple[Cause, float] | None = None
        """Failure of a process that only lost another one, and the time, on the monotonic clock."""
        self.sends = True
        """Whether the process may still send events."""
        self.pid, self.wait = process.pid, process.wait
        self.group: Group = group_of(self.pid)
        self._process = process
        self._pieces: list[bytes] = []  # pieces of an incomplete line, which is long after a pass of many requests
        self._children: list[Watch] = []
        self._watch = Watch(self.pid, "engine process")

    @property
    def watches(self) -> list[Watch]:
        """Watches on the engine's processes; the end of each wakes the supervisor."""
        return [self._watch, *self._children]

    def order(self, line: str) -> None:
        """Write a line to the engine process; if the process is gone, its pidfd shows it."""
        assert self._process.stdin is not None
        content = f"{line}\n".encode()
        with contextlib.suppress(BrokenPipeError):
            while content:
                content = content[self._process.stdin.write(content) :]

    def read(self) -> list[Event]:
        """Return the new events; call this once `pipe` is readable."""
        content = os.read(self.pipe, 1 << 20)
        self.sends = bool(content)
        first, *further = content.split(b"\n")
        self._pieces.append(first)
        lines = [b"".join(self._pieces), *further[:-1]] if further else []
        self._pieces = further[-1:] or self._pieces
        events = [parse(line) for line in lines]
        for event in events:
            if isinstance(event, PhaseBegins):
                self.phase = event.phase
            elif isinstance(event, Ready):
                self._children = [Watch(pid, name) for pid, name in event.processes.items()]
        return events

    def ended(self) -> bool:
        """Return whether the engine process has ended and its pipe is empty."""
        return self._watch.ended() and not (self.sends and select.select([self.pipe], [], [], 0)[0])

    def check_children(self) -> None:
        """Record the first child process of the engine that ended, to limit the wait if the engine hangs."""
        for watch in [watch for watch in self._children if watch.ended()]:
            self._children.remove(watch)
            watch.close()
            if self.phase != "stopping":  # at the end its processes stop as planned
                self.child_ended = self.child_ended or (watch.name, time.monotonic())

    def log_tail(self) -> str:
        """Return the end of the engine's log."""
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - LOG_TAIL_BYTES))  # a log may have gigabytes
            return file.read().decode(errors="replace")

    def close(self) -> None:
        """Wait for the engine process, which must have been ended, and close all descriptors."""
        self.wait()
        os.close(self.pipe)
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        for watch in self.watches:
            watch.close()
