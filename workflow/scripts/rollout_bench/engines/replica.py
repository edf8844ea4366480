"""One engine process of a launch, as its supervisor sees it: what it tells, how it ended, and what it was doing."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import time
from collections.abc import Set
from pathlib import Path

from rollout_bench.engines.events import Event, PhaseBegins, Ready, parse
from rollout_bench.engines.processes import Group, Watch, group_of

LOG_TAIL_BYTES = 400_000


def replica_log(log: Path, replica: int) -> Path:
    """Where a replica's engine writes, of a launch whose log is `log`: replica 0 there, the others beside it."""
    return log if replica == 0 else log.with_suffix(f".replica-{replica}{log.suffix}")


class Replica:
    """Starts an engine process in a session of its own; it does nothing before its first order, which is its job.

    Args:
        module: the engine process's module, run with `python -m`.
        environment: its environment.
        cores: those that it may run on; None for all.
        log: takes the engine's output.
    """

    def __init__(self, module: str, environment: dict[str, str], cores: Set[int] | None, log: Path) -> None:
        self.log = log
        self.phase = "starting"
        self.child_ended: tuple[str, float] | None = None
        """The first other process of the engine that ended, and when, on the monotonic clock."""
        self.told = True
        """Whether it may still tell something."""
        self._pieces: list[bytes] = []  # pieces of a line whose end has not come; a pass of many requests is a long one
        self._children: list[Watch] = []
        reading, writing = os.pipe2(os.O_CLOEXEC)
        try:
            with log.open("ab") as output:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", module, str(writing)],
                    bufsize=0,
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=output,
                    env=environment,
                    pass_fds=[writing],
                    start_new_session=True,
                )
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        self.pipe = reading
        """Becomes readable when it tells something."""
        if cores:
            with contextlib.suppress(ProcessLookupError):  # ended already: its pidfd will say so
                os.sched_setaffinity(self._process.pid, cores)  # before it has its job, so before any other thread
        self.group: Group = group_of(self._process.pid)
        self._watch = Watch(self._process.pid, "engine process")

    @property
    def pid(self) -> int:
        """Pid of the engine process."""
        return self._process.pid

    @property
    def watches(self) -> list[Watch]:
        """The processes whose end is worth waking up for."""
        return [self._watch, *self._children]

    def order(self, line: str) -> None:
        """Writes a line to the engine process; that it is gone, its pidfd says."""
        assert self._process.stdin is not None
        content = f"{line}\n".encode()
        with contextlib.suppress(BrokenPipeError):
            while content:
                content = content[self._process.stdin.write(content) :]

    def read(self) -> list[Event]:
        """What it told since; call it once `pipe` is readable."""
        content = os.read(self.pipe, 1 << 20)
        self.told = bool(content)
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
        """Whether the engine process has ended and left nothing in its pipe."""
        return self._watch.ended() and not (self.told and select.select([self.pipe], [], [], 0)[0])

    def check_children(self) -> None:
        """Notes the first other process of the engine that ended, so that a hang after it stays short."""
        for watch in [watch for watch in self._children if watch.ended()]:
            self._children.remove(watch)
            watch.close()
            if self.phase != "stopping":  # then it should
                self.child_ended = self.child_ended or (watch.name, time.monotonic())

    def status(self) -> int:
        """Waits for the end of the engine process; its exit status, a signal as a negative number."""
        return self._process.wait()

    def log_tail(self) -> str:
        """The end of what its engine logged."""
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - LOG_TAIL_BYTES))
            return file.read().decode(errors="replace")

    def close(self) -> None:
        """Waits for the engine process, which has been ended, and gives all descriptors back."""
        self._process.wait()
        os.close(self.pipe)
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        for watch in self.watches:
            watch.close()
