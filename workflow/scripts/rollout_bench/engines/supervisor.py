"""The supervisor: starts the engine process under a guardian, listens to it, and ends its group whatever happens.

supervisor  -- job, go (stdin) ->  engine process (session of its own) --- engine core, workers
    |       <-- events (pipe) ---
    +--- pipe held open --->  guardian (session of its own; ends the engine's session at end of file)
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from rollout_bench.engines import device_memory
from rollout_bench.engines.deadlines import STARTS, Step, step_of
from rollout_bench.engines.events import (
    Done,
    Event,
    Failed,
    IterationBegins,
    IterationDone,
    Job,
    Limits,
    PhaseBegins,
    Ready,
    RoundDone,
    StepsDone,
    parse,
)
from rollout_bench.engines.failures import CRASH_FIX, Cause, diagnose, died
from rollout_bench.engines.guardian import Guardian
from rollout_bench.engines.processes import Group, Watch, group_of, members
from rollout_bench.engines.signals import Interrupted

PATIENCE_S = 20.0
"""How long the engine process may take to notice that another process of the engine ended."""

POLL_S = 0.5
"""How often the end of processes is looked for where the kernel has no pidfd."""

LOG_TAIL_BYTES = 400_000


class LaunchFailed(Exception):  # noqa: N818 (an outcome)
    """The launch brought no measurement.

    Args:
        phase: what it was doing.
        cause: why it failed.
    """

    def __init__(self, phase: str, cause: Cause) -> None:
        self.phase = phase
        self.cause = cause
        super().__init__(cause.cause)


class _EngineEnded(Exception):  # noqa: N818 (an outcome)
    """The engine process ended without a word."""


@dataclass
class Launch:
    """One run of the engine process.

    Args:
        module: the engine process's module, run with `python -m`.
        job: what it is to do.
        log: takes the engine's output.
        environments: the environment of each replica.
        timeout_s: limit for the whole launch in seconds.
        limits: limits for its parts.
        signals: descriptor from `signals_as_descriptor`.
        cores: the cores that each replica may run on, None for all; all for all replicas where it is empty.
        keep_open: descriptors that stay open until the engine has ended, also if this process is killed: the locks
            of its devices live in them.
    """

    module: str
    job: Job
    log: Path
    environments: list[dict[str, str]]
    timeout_s: float
    limits: Limits
    signals: int
    cores: Sequence[Set[int] | None] = ()
    keep_open: Sequence[int] = ()
    _phase: str = "starting"
    _step: Step | None = None
    _began: float = field(default_factory=time.monotonic)
    _children: list[Watch] = field(default_factory=list)
    _child_ended: tuple[str, float] | None = None
    _oom_kills_before: int = 0
    _groups: list[Group] = field(default_factory=list)
    _guardian: Guardian | None = None

    def processes(self) -> tuple[list[Group], set[int]]:
        """The engine's sessions, once there are some, and the pids of the processes that look after them."""
        guardian = set() if self._guardian is None else {self._guardian.pid}
        return self._groups, {os.getpid(), *guardian}

    def run(self, listen: Callable[[Event], None]) -> None:
        """Runs the engine process and hands each of its events to `listen`, until all iterations are delivered.

        When it returns or raises, no process of the engine is left.

        Raises:
            LaunchFailed: the engine failed, ended, or ran past the limit.
            Interrupted: a signal came.
        """
        self._oom_kills_before = _oom_kills()
        self._step = step_of(self._phase, self.limits, self._began)
        folder = Path(tempfile.mkdtemp(prefix="rollout-bench-"))
        # for the engine's sockets and rendezvous files
        self.environments = [{**environment, "TMPDIR": str(folder)} for environment in self.environments]
        with self.log.open("wb") as log:
            try:
                guardian = Guardian(log, self.environments[0], folder, self.keep_open)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
            try:
                process, events = self._start(log)
            except BaseException:
                guardian.end()
                raise
            group = group_of(process.pid)
            guardian.watch(group)
            self._groups, self._guardian = [group], guardian
            engine = Watch(process.pid, "engine process")
            try:
                assert process.stdin is not None
                with os.fdopen(events, "rb", buffering=0) as pipe, process.stdin as orders:
                    _order(orders, self.job.model_dump_json())
                    self._listen(engine, guardian, pipe, orders, listen)
            except _EngineEnded:
                guardian.end()
                cause = died(process.wait(), self._log_tail(), _oom_kills() > self._oom_kills_before)
                raise LaunchFailed(self._phase, cause) from None
            finally:
                pids = members(group)
                guardian.end()
                process.wait()
                for watch in (engine, *self._children):
                    watch.close()
                device_memory.wait_until_released(self.job.spec.platform, pids)

    def _start(self, log: IO[bytes]) -> tuple[subprocess.Popen[bytes], int]:
        reading, writing = os.pipe2(os.O_CLOEXEC)
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", self.module, str(writing)],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=self.environments[0],
                pass_fds=[writing],
                start_new_session=True,
            )
        finally:
            os.close(writing)
        if self.cores and self.cores[0]:
            with contextlib.suppress(ProcessLookupError):  # ended already: its pidfd will say so
                os.sched_setaffinity(process.pid, self.cores[0])  # before it has its job, so before any other thread
        return process, reading

    def _listen(
        self, engine: Watch, guardian: Guardian, pipe: IO[bytes], orders: IO[bytes], listen: Callable[[Event], None]
    ) -> None:
        watching = Watch(guardian.pid, "guardian")
        told = True
        waiting: list[bytes] = []  # pieces of a line whose end has not come; a pass of many requests is a long one
        try:
            while True:
                readable = self._wait(engine, watching, [pipe.fileno()] if told else [])
                if self.signals in readable:
                    raise Interrupted(os.read(self.signals, 1)[0])
                if watching.ended() and guardian.replace_if_dead():
                    watching.close()
                    watching = Watch(guardian.pid, "guardian")
                if pipe.fileno() in readable:
                    content = os.read(pipe.fileno(), 1 << 20)
                    told = bool(content)
                    first, *further = content.split(b"\n")
                    waiting.append(first)
                    lines = [b"".join(waiting), *further[:-1]] if further else []
                    waiting = further[-1:] or waiting
                    for line in lines:
                        event = parse(line)
                        self._take(event)
                        listen(event)
                        if isinstance(event, IterationBegins):
                            _order(orders, "go")
                        if isinstance(event, Done):
                            return
                elif engine.ended():  # and the pipe has nothing left to say
                    raise _EngineEnded
                self._check_children()
        finally:
            watching.close()

    def _wait(self, engine: Watch, guardian: Watch, descriptors: list[int]) -> list[int]:
        """Sleeps until something happens; the descriptors that are readable then."""
        watches = [engine, guardian, *self._children]
        held = [watch.descriptor for watch in watches if watch.descriptor is not None]
        deadline = self._began + self.timeout_s
        if self._child_ended is not None:
            deadline = min(deadline, self._child_ended[1] + PATIENCE_S)
        if self._step is not None:
            deadline = min(deadline, self._step.deadline)
        left_s = deadline - time.monotonic()
        if left_s > 0:
            nap_s = left_s if len(held) == len(watches) else min(left_s, POLL_S)
            return select.select([self.signals, *descriptors, *held], [], [], nap_s)[0]
        if self._child_ended is not None:
            raise LaunchFailed(self._phase, self._child_crash(self._child_ended[0]))
        with contextlib.suppress(ProcessLookupError):
            os.kill(engine.pid, signal.SIGUSR1)  # has it write to the log where it hangs
            time.sleep(0.5)
        if self._step is not None and time.monotonic() >= self._step.deadline:
            raise LaunchFailed(self._phase, self._step.overrun)
        cause = f"the launch hung in phase {self._phase}: not done after {self.timeout_s:g} s"
        fix = "read the end of the log for where it hung; raise timeout_s if the machine is slow or the model large"
        raise LaunchFailed(self._phase, Cause("timeout", cause, fix))

    def _take(self, event: Event) -> None:
        if isinstance(event, PhaseBegins):
            self._phase = event.phase
            if event.phase in STARTS:
                self._step = step_of(event.phase, self.limits, self._began)
            else:
                self._step = step_of(event.phase, self.limits, time.monotonic()) if event.phase == "stopping" else None
        elif isinstance(event, IterationBegins):
            self._step = step_of(self._phase, self.limits, time.monotonic())
        elif isinstance(event, IterationDone | StepsDone | RoundDone):
            self._step = None
        elif isinstance(event, Ready):
            self._children = [Watch(pid, name) for pid, name in event.processes.items()]
        elif isinstance(event, Failed):
            self._check_children()
            if event.category:
                raise LaunchFailed(self._phase, Cause(event.category, event.exception, event.fix))
            cause = diagnose(event.exception, self._log_tail())
            if self._child_ended is not None and cause.category == "crash":
                cause = self._child_crash(self._child_ended[0])
            raise LaunchFailed(self._phase, cause)

    def _check_children(self) -> None:
        """Notes the first other process of the engine that ended, so that a hang after it stays short."""
        if self._phase == "stopping":
            for watch in [watch for watch in self._children if watch.ended()]:
                self._children.remove(watch)  # as it should
                watch.close()
            return
        for watch in [watch for watch in self._children if watch.ended()]:
            self._children.remove(watch)
            watch.close()
            self._child_ended = self._child_ended or (watch.name, time.monotonic())

    def _child_crash(self, name: str) -> Cause:
        if _oom_kills() > self._oom_kills_before:
            return died(-signal.SIGKILL, "", out_of_memory=True)
        return Cause("crash", f"the engine's process {name} ended without a word", CRASH_FIX)

    def _log_tail(self) -> str:
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - LOG_TAIL_BYTES))
            return file.read().decode(errors="replace")


def _order(orders: IO[bytes], line: str) -> None:
    """Writes a line to the engine process; that it is gone, its pidfd says."""
    content = f"{line}\n".encode()
    with contextlib.suppress(BrokenPipeError):
        while content:
            content = content[orders.write(content) :]


def _oom_kills() -> int:
    """How many processes of this cgroup, or else of the machine, the kernel has ended for want of memory."""
    total = 0
    for path, name in (("/sys/fs/cgroup/memory.events", "oom_kill"), ("/proc/vmstat", "oom_kill")):
        with contextlib.suppress(OSError, ValueError):
            for line in Path(path).read_text().splitlines():
                if line.split()[0] == name:
                    total += int(line.split()[1])
    return total
