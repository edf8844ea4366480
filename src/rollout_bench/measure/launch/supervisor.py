"""The supervisor: starts the engine processes under a guardian, reads their events, and always ends them.

supervisor  -- job, go (stdin) ->  engine process of each replica (own session) --- engine core, workers
    |       <-- events (pipe) ---
    |       <-- sequences (sockets) -->  in a rollout: from the router, a thread of the supervisor's process
    +--- pipe held open --->  guardian (own session; ends the engines' sessions at end of file)

Most launches have one replica. With several, an event counts once all replicas have sent theirs, so all are ready
before a pass begins. In a block the engine waits for its turn before each pass.
"""

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import IO

from rollout_bench.contracts.failures import CRASH_FIX, Cause
from rollout_bench.contracts.modes import mode_of
from rollout_bench.core.errors import MeasuringFailed, UserError
from rollout_bench.core.processes import (
    Group,
    Interrupted,
    Watch,
    group_of,
    members_of,
    signal_groups,
)
from rollout_bench.measure.launch.failures import diagnose, died, unwritten
from rollout_bench.measure.launch.guardian import Guardian, scratch
from rollout_bench.measure.launch.hooks import RequestRouter
from rollout_bench.measure.launch.preparation import prepare
from rollout_bench.measure.launch.protocol import (
    PEER_LOST,
    SERVER,
    Done,
    Event,
    Failed,
    IterationBegins,
    IterationDone,
    Job,
    PhaseBegins,
    Ready,
    parse,
)
from rollout_bench.measure.launch.replicas import ReplicaEvents, merge_events
from rollout_bench.measure.launch.starter import Forked
from rollout_bench.measure.machine import inventory
from rollout_bench.measure.machine.host import number_in
from rollout_bench.measure.machine.readings import PauseDetector

STOP_S = 60.0
"""Time limit for an engine to stop, in seconds."""

LOG_TAIL_BYTES = 400_000


class Replica:
    """An engine process in its own session; it does nothing before its first order, which is its job.

    Args:
        module: the engine process's module, run with `python -m`.
        environment: environment of the process.
        cores: cores that the process may use; None for all.
        log: file for the engine's output.
        line: descriptor of the inherited socket to the router; None without a router.
        starter: socket of the starter that forks the engine; None, or one that is gone, starts a new program.
    """

    def __init__(
        self,
        module: str,
        environment: dict[str, str],
        cores: Set[int] | None,
        log: Path,
        line: int | None = None,
        starter: Path | None = None,
    ) -> None:
        self.log = log
        self.line = line
        """The descriptor of that socket in the engine process."""
        self.phase = "starting"
        self.child_ended: tuple[str, float] | None = None
        """Name of the engine's child process that ended first, and the time, on the monotonic clock."""
        self.lost: tuple[Cause, float] | None = None
        """Failure of a process that only lost another one, and the time, on the monotonic clock."""
        self.told = True
        """Whether the process may still send events."""
        self._pieces: list[bytes] = []  # pieces of an incomplete line, which is long after a pass of many requests
        self._children: list[Watch] = []
        reading, writing = os.pipe2(os.O_CLOEXEC)
        try:
            inherited = [writing, *([] if line is None else [line])]
            with log.open("ab") as output:
                process: subprocess.Popen[bytes] | Forked | None = None
                if starter is not None:
                    with contextlib.suppress(OSError):  # it was killed, was idle for too long or hangs: a plain start
                        process = Forked(starter, module, environment, output.fileno(), inherited)
                        self.line = next(iter(process.descriptors[1:]), None)
                self._process = process or subprocess.Popen(
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
        self.pipe = reading
        """Becomes readable when the process sends an event."""
        if cores:
            with contextlib.suppress(ProcessLookupError):  # ended already: its pidfd shows it
                os.sched_setaffinity(self._process.pid, cores)  # before the job arrives, so before other threads exist
        self.pid, self.wait = self._process.pid, self._process.wait
        self.group: Group = group_of(self.pid)
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
        """Return whether the engine process has ended and its pipe is empty."""
        return self._watch.ended() and not (self.told and select.select([self.pipe], [], [], 0)[0])

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


PATIENCE_S = 20.0
"""Time for the engine process to notice that one of its child processes ended, in seconds."""

CAUSE_S = 5.0
"""Time to wait for another rank's failure after a rank has only lost it, in seconds."""

POLL_S = 0.5
"""Interval between checks for ended processes if the kernel has no pidfd, in seconds."""


class LaunchFailed(Exception):  # noqa: N818 (an outcome)
    """The launch produced no measurement.

    Args:
        phase: the phase in which it failed.
        cause: the reason.
        log: log with the details, if it is not the launch's own log.
    """

    def __init__(self, phase: str, cause: Cause, log: Path | None = None) -> None:
        self.phase = phase
        self.cause = cause
        self.log = log
        super().__init__(cause.cause)


@dataclass
class EngineLaunch:
    """One run of the engine: its replicas, whose passes begin together.

    Args:
        module: the engine process's module, run with `python -m`.
        job: the work; each replica receives a copy with its own number.
        log: file for the output of replica 0's engine; the other logs lie beside it.
        environments: the environment of each replica.
        timeout_s: limit for the whole launch in seconds.
        signals: descriptor from `signals_as_descriptor`.
        cores: the cores that each replica may use, None for all; if empty, all replicas may use all cores.
        keep_open: descriptors that stay open until the engine has ended, even if this process is killed: they hold the
            locks of the devices.
        pauses: notices pauses of the machine during a pass.
        router: distributes the sequences of each pass to the replicas; None if each replica makes its own.
        starter: socket of the starter that forks the engine; None starts a new program.
        join: makes one event of the n-th events of all replicas; None for engines that share nothing.
        roles: work of each replica, if they are the ranks of a placement.
    """

    module: str
    job: Job
    log: Path
    environments: list[dict[str, str]]
    timeout_s: float
    signals: int
    cores: Sequence[Set[int] | None] = ()
    keep_open: Sequence[int] = ()
    pauses: PauseDetector = field(default_factory=PauseDetector)
    router: RequestRouter | None = None
    starter: Path | None = None
    join: Callable[[Sequence[Event]], Event] | None = None
    roles: Sequence[str] = ()
    _stop_by: float | None = None
    _began: float = field(default_factory=time.monotonic)
    _oom_kills_before: int = 0
    _replicas: list[Replica] = field(default_factory=list)
    _guardian: Guardian | None = None
    _round: int | None = None
    _parked: float | None = None
    _kept: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    waited_s: float = 0.0
    """Total time spent waiting for turns, in seconds. It does not count against any limit."""
    prepared_s: float = 0.0
    """Time of the user's command before the start, in seconds."""

    @property
    def logs(self) -> list[Path]:
        """The log of each replica's engine."""
        others = range(1, len(self.environments))
        return [self.log, *(self.log.with_suffix(f".replica-{number}{self.log.suffix}") for number in others)]

    def processes(self) -> tuple[list[Group], set[int]]:
        """Return the engine's sessions, if it has started, and the pids of the supervisor and the guardian."""
        guardian = set() if self._guardian is None else {self._guardian.pid}
        return [replica.group for replica in self._replicas], {os.getpid(), *guardian}

    @property
    def warming_up(self) -> bool:
        """Whether the next pass belongs to the warm-up."""
        return self._replicas[0].phase == "warmup"

    def run(self, listen: Callable[[Event], None]) -> None:
        """Run the engine and pass each of its events to `listen`, until all iterations are delivered.

        When this method returns or raises, no process of the engine is left.

        Raises:
            LaunchFailed: if the engine failed, ended early, or exceeded the time limit.
            Interrupted: if a signal arrived.
        """
        try:
            self.start()
            while self.advance(listen):
                self.go(listen)
        finally:
            self.close()

    def start(self) -> None:
        """Start the engine's processes; whether this succeeds or not, `close` must be called."""
        self._oom_kills_before = _oom_kills()
        mode_of(self.job.spec.mode).collector.get()  # it has the mode's events, which `parse` must know
        for log in self.logs:
            log.write_bytes(b"")
        log_file = self._kept.enter_context(self.log.open("ab"))
        temporary, descriptor = self._kept.enter_context(scratch())
        environments = [{**environment, "TMPDIR": str(temporary)} for environment in self.environments]
        keep_open = [*self.keep_open, descriptor]
        self._guardian = guardian = Guardian(log_file, environments[0], temporary, keep_open)
        self._kept.callback(self._end)
        self._prepare_start(log_file, environments[0])
        count = len(environments)
        lines: Sequence[int | None] = [None] * count if self.router is None else self.router.connect(count)
        for each in zip(environments, self.cores or [None] * count, self.logs, lines, strict=True):
            self._replicas.append(Replica(self.module, *each, self.starter))
            guardian.watch(self._replicas[-1].group)
        if self.router is not None:
            self.router.connected()
        self._send_job([replica.line for replica in self._replicas])
        self._watching = Watch(guardian.pid, "guardian")
        self._kept.callback(lambda: self._watching.close())

    def _prepare_start(self, log: IO[bytes], environment: dict[str, str]) -> None:
        """Run the user's command, if there is one; raise `LaunchFailed` if it fails."""
        assert self._guardian is not None, "ends what the command leaves"
        command, began = self.job.spec.engine.before, time.monotonic()
        if command is None:
            return
        until = self._began + self.timeout_s
        cause = prepare(command, environment, log, until, self.signals, self._guardian.watch)
        if cause is not None:
            raise LaunchFailed("starting", cause)
        self.prepared_s = time.monotonic() - began

    def follow(self, job: Job) -> None:
        """Give the engine, which has done its job, a further one that differs in the workload."""
        self.unpark()
        self._oom_kills_before = _oom_kills()
        self.job, self.timeout_s = job, job.timeout_s
        self._began, self.waited_s, self._round = time.monotonic(), 0.0, None
        self._send_job([None] * len(self._replicas))

    def _send_job(self, lines: Sequence[int | None]) -> None:
        for number, (replica, line) in enumerate(zip(self._replicas, lines, strict=True)):
            replica.order(self.job.model_copy(update={"replica": number, "line": line}).model_dump_json())
        self._gathering = ReplicaEvents(len(lines), self.join or partial(merge_events, platform=self.job.spec.platform))

    def begin_end(self) -> None:
        """Let the guardian begin to end the engine, if it was started; `close` waits for it."""
        if self._guardian is not None:
            self._guardian.begin_end()

    def close(self) -> None:
        """End the engine's processes, if there are any, and release everything."""
        self._kept.close()

    def _end(self) -> None:
        assert self._guardian is not None, "was started"
        platform, pids = self.job.spec.platform, set(members_of([replica.group for replica in self._replicas]))
        self._guardian.end()
        for replica in self._replicas:
            replica.close()
        if self.router is not None:
            self.router.close()
        inventory.wait_until_free(lambda: inventory.pids_on(platform) & pids)

    def advance(self, listen: Callable[[Event], None]) -> bool:
        """Pass events to `listen` until the next pass can begin; return False if all iterations are delivered.

        Raises:
            LaunchFailed: if the engine failed, ended early, or exceeded the time limit, its processes contradict each
                other, or an event cannot be written down.
            Interrupted: if a signal arrived.
        """
        try:
            return self._advance(listen)
        except MeasuringFailed as error:
            cause = Cause(error.category, error.cause, error.fix)
            raise LaunchFailed(self._replicas[0].phase, cause) from error
        except OSError as error:
            raise LaunchFailed(self._replicas[0].phase, unwritten(error)) from error

    def _advance(self, listen: Callable[[Event], None]) -> bool:
        assert self._guardian is not None, "was started"
        while True:
            readable = self._wait()
            if self.signals in readable:
                raise Interrupted(os.read(self.signals, 1)[0])
            if self.router is not None and self.router.descriptor in readable:
                self.router.check()
            if self._watching.ended() and self._guardian.replace_if_dead():
                self._watching.close()
                self._watching = Watch(self._guardian.pid, "guardian")
            for number, replica in enumerate(self._replicas):
                if replica.pipe in readable:
                    for event in replica.read():
                        self._check_failed(number, event)
                        for complete in self._gathering.take(number, event):
                            self._take(complete, listen)
                            if isinstance(complete, IterationBegins | Done):
                                return isinstance(complete, IterationBegins)
                elif replica.ended() and not replica.lost:
                    self._guardian.end()
                    raise self._failed([number], died(replica.wait(), replica.log_tail(), self._out_of_memory()))
                replica.check_children()

    def _take(self, event: Event, listen: Callable[[Event], None]) -> None:
        """Handle an event that all replicas have sent."""
        if isinstance(event, PhaseBegins):
            self._stop_by = time.monotonic() + STOP_S if event.phase == "stopping" else None
        elif isinstance(event, Ready) and self._guardian is not None:
            self._guardian.note_shared_memory()
        if self.router is not None:
            self._prepare(self.router, event)
        if isinstance(event, IterationDone):
            iteration = event.iteration if self.router is None else self.router.completed(event.iteration)
            event = event.model_copy(update={"iteration": iteration.model_copy(update={"round": self._round})})
        if not isinstance(event, IterationBegins):
            listen(event)

    def _prepare(self, router: RequestRouter, event: Event) -> None:
        """Prepare the router for the loaded engines, and for each pass."""
        try:
            if isinstance(event, Ready):
                assert event.vocabulary is not None, "replicas behind a router say so"
                router.ready(event.vocabulary)
            elif isinstance(event, IterationBegins):
                router.prepare()
        except UserError as error:
            known = replace(diagnose(f"UserError: {error}", ""), cause=error.problem, fix=error.remedy)
            raise LaunchFailed(self._replicas[0].phase, known) from None

    def go(self, listen: Callable[[Event], None], number: int | None = None) -> None:
        """Begin the next pass, for which all replicas are ready; `number` is its round in a block."""
        self.unpark()
        self._round = number
        listen(IterationBegins())
        for replica in self._replicas:
            replica.order("go")
        if self.router is not None:
            self.router.begin()

    def park(self) -> None:
        """Suspend the engine until `unpark` if it would use cores of the engine that has the turn.

        vLLM's workers spin for a second after each message before they sleep (`busy_loop_s` of shm_broadcast.py), and
        no setting shortens this. On accelerators the host's cores only feed the device, so nothing is suspended.

        The server of an online launch keeps running: timers that expire while it is suspended would close its
        connections when the pass begins. The server of a rollout is suspended together with its client. The client
        reuses no connection that was idle for more than 2 s (`open_session` in measure/server/stream.py), and the
        server closes none before 5 s.
        """
        self._parked = time.monotonic()
        if self.job.spec.platform == "cpu" and not mode_of(self.job.spec.mode).has_loads:
            signal_groups([replica.group for replica in self._replicas], signal.SIGSTOP)

    def unpark(self) -> None:
        """Let a parked engine run again."""
        if self._parked is not None:
            self.waited_s += time.monotonic() - self._parked
            self._parked = None
            signal_groups([replica.group for replica in self._replicas], signal.SIGCONT)

    def _wait(self) -> list[int]:
        """Wait until something happens; return the descriptors that are then readable."""
        awaited = [self.signals, *(replica.pipe for replica in self._replicas if replica.told)]
        awaited += [] if self.router is None else [self.router.descriptor]
        watches = [self._watching, *(watch for r in self._replicas if not r.lost for watch in r.watches)]
        held = [watch.descriptor for watch in watches if watch.descriptor is not None]
        bereft = [(r.child_ended[1], number) for number, r in enumerate(self._replicas) if r.child_ended is not None]
        lost = [(*replica.lost, number) for number, replica in enumerate(self._replicas) if replica.lost is not None]
        # the time spent waiting for turns is not the launch's
        limits = [self._began + self.waited_s + self.timeout_s, *(when + PATIENCE_S for when, _ in bereft)]
        limits += [when + CAUSE_S for _, when, _ in lost] + [self._stop_by or float("inf")]
        if (left_s := min(limits) - time.monotonic()) > 0:
            nap_s = left_s if len(held) == len(watches) else min(left_s, POLL_S)
            return self.pauses.wait([*awaited, *held], nap_s)
        if lost:
            cause, _, number = lost[0]
            raise self._failed([number], cause)
        if bereft:
            number = min(bereft)[1]
            raise self._failed([number], self._child_crash(self._replicas[number]))
        behind = self._gathering.behind()
        for number in behind:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._replicas[number].pid, signal.SIGUSR1)  # writes its stack to the log
        time.sleep(0.5)
        raise self._failed(behind, self._overrun(self._replicas[behind[0]].phase))

    def _overrun(self, phase: str) -> Cause:
        if self._stop_by is not None and time.monotonic() >= self._stop_by:
            cause = f"the engine had not ended after {STOP_S:g} s"
            fix = "read the end of the log for where it hung; what it measured is not kept"
            return Cause("stop_timeout", cause, fix)
        cause = f"the launch hung in phase {phase}: not done after {self.timeout_s:g} s"
        fix = "read the end of the log for where it hung; raise timeout_s if the machine is slow or the model large"
        if self.job.spec.endpoint is not None:
            fix = "see whether the endpoint still answers a request; raise timeout_s if it is only slow"
        return Cause("timeout", cause, fix)

    def _check_failed(self, number: int, event: Event) -> None:
        """Raise `LaunchFailed` if the event reports a failure of a replica."""
        if not isinstance(event, Failed):
            return
        replica = self._replicas[number]
        replica.check_children()
        if event.category == PEER_LOST:
            replica.lost = replica.lost or (Cause("crash", event.exception, event.fix), time.monotonic())
            return
        cause = Cause(event.category, event.exception, event.fix)
        if not event.category:
            cause = diagnose(event.exception, replica.log_tail())
        # the kernel may have killed a child of the engine process, whose end may also be all that is known
        silent = replica.child_ended is not None and replica.child_ended[0] != SERVER and not event.category
        if cause.category == "crash" and (self._out_of_memory() or silent):
            cause = self._child_crash(replica)
        raise self._failed([number], cause)

    def _failed(self, numbers: list[int], cause: Cause) -> LaunchFailed:
        """Return the failure of the replicas in `numbers`; the text names them unless all replicas are meant."""
        replica, of = self._replicas[numbers[0]], len(self._replicas)
        if len(numbers) < of:
            what = f"{'rank' if self.roles else 'replica'}{'s' if len(numbers) > 1 else ''}"
            named = f"{what} {', '.join(map(str, numbers))} of {of}"
            if self.roles:
                named += f" ({'; '.join(self.roles[number] for number in numbers)})"
            cause = replace(cause, cause=f"{named}: {cause.cause}")
        if cause.category == "crash" and not shutil.disk_usage(replica.log).free:  # which ends who writes there
            fix = "free some space there, then run the same command again"
            cause = Cause("disk_full", f"the file system of {replica.log} is full: {cause.cause}", fix)
        return LaunchFailed(replica.phase, cause, replica.log)

    def _child_crash(self, replica: Replica) -> Cause:
        if self._out_of_memory():
            return died(-signal.SIGKILL, "", out_of_memory=True)
        assert replica.child_ended is not None, "called when a process of the engine ended"
        return Cause("crash", f"the engine's process {replica.child_ended[0]} ended without a word", CRASH_FIX)

    def _out_of_memory(self) -> bool:
        return _oom_kills() > self._oom_kills_before


def _oom_kills() -> int:
    """Return the number of out-of-memory kills in this cgroup plus those on the machine."""
    counters = "/sys/fs/cgroup/memory.events", "/proc/vmstat"
    return sum(number_in(path, r"^oom_kill (\d+)") or 0 for path in counters)
