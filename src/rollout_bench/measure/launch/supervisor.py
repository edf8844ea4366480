"""The supervisor: starts the engine processes under a guardian, listens to them, and ends them whatever happens.

supervisor  -- job, go (stdin) ->  engine process of each replica (session of its own) --- engine core, workers
    |       <-- events (pipe) ---
    |       <-- sequences (sockets) -->  of a rollout, by its router, a thread of the supervisor's process
    +--- pipe held open --->  guardian (session of its own; ends the engines' sessions at end of file)

Usually there is one replica. Of several each event counts once all have told theirs: so all of them have to be ready
for a pass before any is let go. In a block the supervisor asks for its turn before it lets them go.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path

from rollout_bench.contracts.postmortem import Cause
from rollout_bench.core.errors import UserError
from rollout_bench.core.processes import (
    Group,
    Interrupted,
    Watch,
    continue_groups,
    group_of,
    members_of,
    stop_groups,
)
from rollout_bench.measure.launch.failures import CRASH_FIX, diagnose, died
from rollout_bench.measure.launch.forked import Forked, Imported
from rollout_bench.measure.launch.guardian import Guardian
from rollout_bench.measure.launch.passes import passes_of
from rollout_bench.measure.launch.protocol import (
    Done,
    Event,
    Failed,
    IterationBegins,
    IterationDone,
    Job,
    PhaseBegins,
    Ready,
    go,
    parse,
)
from rollout_bench.measure.launch.replicas import Gathering
from rollout_bench.measure.launch.turns import Asks, End, Turns
from rollout_bench.measure.machine import device_memory
from rollout_bench.measure.machine.readings import Pauses
from rollout_bench.measure.machine.scratch import scratch
from rollout_bench.measure.routing.router import Router

STOP_S = 60.0
"""Until a server has ended after it was asked to."""

LOG_TAIL_BYTES = 400_000


def replica_log(log: Path, replica: int) -> Path:
    """Return where a replica's engine writes, of a launch whose log is `log`: replica 0 there, the others beside it."""
    return log if replica == 0 else log.with_suffix(f".replica-{replica}{log.suffix}")


class Replica:
    """Starts an engine process in a session of its own; it does nothing before its first order, which is its job.

    Args:
        module: the engine process's module, run with `python -m`.
        environment: its environment.
        cores: those that it may run on; None for all.
        log: takes the engine's output.
        line: descriptor of its line to the router, which it inherits; None where there is no router.
        imported: import of the engine in this process, from which it is forked; None where it is a new program.
    """

    def __init__(
        self,
        module: str,
        environment: dict[str, str],
        cores: Set[int] | None,
        log: Path,
        line: int | None = None,
        imported: Imported | None = None,
    ) -> None:
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
            inherited = [writing, *([] if line is None else [line])]
            with log.open("ab") as output:
                self._process: subprocess.Popen[bytes] | Forked
                if imported is None:
                    self._process = subprocess.Popen(
                        [sys.executable, "-m", module, str(writing)],
                        bufsize=0,
                        stdin=subprocess.PIPE,
                        stdout=output,
                        stderr=output,
                        env=environment,
                        pass_fds=inherited,
                        start_new_session=True,
                    )
                else:
                    self._process = Forked(module, imported, environment, output.fileno(), inherited)
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
        """Write a line to the engine process; that it is gone, its pidfd says."""
        assert self._process.stdin is not None
        content = f"{line}\n".encode()
        with contextlib.suppress(BrokenPipeError):
            while content:
                content = content[self._process.stdin.write(content) :]

    def read(self) -> list[Event]:
        """Return what it told since; call it once `pipe` is readable."""
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
        """Return whether the engine process has ended and left nothing in its pipe."""
        return self._watch.ended() and not (self.told and select.select([self.pipe], [], [], 0)[0])

    def check_children(self) -> None:
        """Note the first other process of the engine that ended, so that a hang after it stays short."""
        for watch in [watch for watch in self._children if watch.ended()]:
            self._children.remove(watch)
            watch.close()
            if self.phase != "stopping":  # then it should
                self.child_ended = self.child_ended or (watch.name, time.monotonic())

    def status(self) -> int:
        """Wait for the end of the engine process; its exit status, a signal as a negative number."""
        return self._process.wait()

    def log_tail(self) -> str:
        """Return the end of what its engine logged."""
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - LOG_TAIL_BYTES))
            return file.read().decode(errors="replace")

    def close(self) -> None:
        """Wait for the engine process, which has been ended, and give all descriptors back."""
        self._process.wait()
        os.close(self.pipe)
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        for watch in self.watches:
            watch.close()


PATIENCE_S = 20.0
"""How long the engine process may take to notice that another process of the engine ended."""

LONGEST_S = 3600.0
"""For how long is slept at once where nothing limits it."""

POLL_S = 0.5
"""How often the end of processes is looked for where the kernel has no pidfd."""


class LaunchFailed(Exception):  # noqa: N818 (an outcome)
    """The launch brought no measurement.

    Args:
        phase: what it was doing.
        cause: why it failed.
        log: where more is to be read, where that is not the launch's own log.
    """

    def __init__(self, phase: str, cause: Cause, log: Path | None = None) -> None:
        self.phase = phase
        self.cause = cause
        self.log = log
        super().__init__(cause.cause)


@dataclass
class EngineLaunch:
    """One run of the engine, in one process or in several: its replicas, which are released together.

    Args:
        module: the engine process's module, run with `python -m`.
        job: what it is to do; each replica has its own number in it.
        log: takes the output of replica 0's engine; those of the others go beside it.
        environments: the environment of each replica.
        timeout_s: limit for the whole launch in seconds.
        signals: descriptor from `signals_as_descriptor`.
        cores: the cores that each replica may run on, None for all; all for all replicas where it is empty.
        keep_open: descriptors that stay open until the engine has ended, also if this process is killed: the locks
            of its devices live in them.
        pauses: notices, while a pass runs, whether the engine can.
        turns: asks for its turns in a block; None where the launch is measured by itself. No limit counts the time that
            it waits for one.
        router: hands the sequences of each pass out to the replicas; None where each makes its own.
        imported: import of the engine in this process, from which the engine is forked; None where it starts plainly.
    """

    module: str
    job: Job
    log: Path
    environments: list[dict[str, str]]
    timeout_s: float
    signals: int
    cores: Sequence[Set[int] | None] = ()
    keep_open: Sequence[int] = ()
    pauses: Pauses = field(default_factory=Pauses)
    turns: Turns | None = None
    router: Router | None = None
    imported: Imported | None = None
    _stop_by: float | None = None
    _began: float = field(default_factory=time.monotonic)
    _oom_kills_before: int = 0
    _replicas: list[Replica] = field(default_factory=list)
    _guardian: Guardian | None = None
    _start_s: float | None = None
    _pass_s: float | None = None
    _done: bool = False

    @property
    def logs(self) -> list[Path]:
        """Where each replica's engine writes."""
        return [replica_log(self.log, number) for number in range(len(self.environments))]

    def processes(self) -> tuple[list[Group], set[int]]:
        """Return the engine's sessions, once there are some, and the pids of the processes that look after them."""
        guardian = set() if self._guardian is None else {self._guardian.pid}
        return [replica.group for replica in self._replicas], {os.getpid(), *guardian}

    def run(self, listen: Callable[[Event], None]) -> None:
        """Run the engine and hands each of its events to `listen`, until all iterations are delivered.

        When it returns or raises, no process of the engine is left.

        Raises:
            LaunchFailed: the engine failed, ended, or ran past the limit.
            Interrupted: a signal came.
        """
        self._oom_kills_before = _oom_kills()
        for log in self.logs:
            log.write_bytes(b"")
        with self.log.open("ab") as log_file, scratch() as temporary:
            environments = [{**environment, "TMPDIR": str(temporary.folder)} for environment in self.environments]
            keep_open = [*self.keep_open, temporary.descriptor]
            self._guardian = guardian = Guardian(log_file, environments[0], temporary.folder, keep_open)
            self._run(environments, guardian, listen)

    def _run(self, environments: list[dict[str, str]], guardian: Guardian, listen: Callable[[Event], None]) -> None:
        try:
            count = len(environments)
            lines: Sequence[int | None] = [None] * count if self.router is None else self.router.connect(count)
            for number, (environment, line) in enumerate(zip(environments, lines, strict=True)):
                replica = Replica(self.module, environment, self._cores(number), self.logs[number], line, self.imported)
                self._replicas.append(replica)
                guardian.watch(replica.group)
            if self.router is not None:
                self.router.connected()
            for number, (replica, line) in enumerate(zip(self._replicas, lines, strict=True)):
                replica.order(self.job.model_copy(update={"replica": number, "line": line}).model_dump_json())
            self._listen(guardian, listen)
        finally:
            pids = members_of([replica.group for replica in self._replicas])
            guardian.end()
            for replica in self._replicas:
                replica.close()
            if self.router is not None:
                self.router.close()
            device_memory.wait_until_released(self.job.spec.platform, pids)

    def _cores(self, replica: int) -> Set[int] | None:
        return self.cores[replica] if self.cores else None

    def _listen(self, guardian: Guardian, listen: Callable[[Event], None]) -> None:
        gathering = Gathering(len(self._replicas), self.job.spec.platform)
        watching = Watch(guardian.pid, "guardian")
        try:
            while True:
                readable = self._wait(watching, gathering)
                if self.signals in readable:
                    raise Interrupted(os.read(self.signals, 1)[0])
                if self.turns is not None and self.turns.descriptor in readable and self._go_on(self.turns, listen):
                    return
                if self.router is not None and self.router.descriptor in readable:
                    self.router.check()
                if watching.ended() and guardian.replace_if_dead():
                    watching.close()
                    watching = Watch(guardian.pid, "guardian")
                for number, replica in enumerate(self._replicas):
                    if replica.pipe in readable:
                        for event in replica.read():
                            self._check_failed(number, event)
                            for complete in gathering.take(number, event):
                                self._take(complete, listen)
                                if isinstance(complete, Done) and self.turns is None:
                                    self._order_all("end")
                                    return
                    elif replica.ended() and not self._done:
                        guardian.end()
                        raise self._failed([number], died(replica.status(), replica.log_tail(), self._out_of_memory()))
                    replica.check_children()
        finally:
            watching.close()

    def _take(self, event: Event, listen: Callable[[Event], None]) -> None:
        """Take an event that all replicas have told."""
        if isinstance(event, PhaseBegins):
            self._stop_by = time.monotonic() + STOP_S if event.phase == "stopping" else None
        elif isinstance(event, Ready) and self._guardian is not None:
            self._guardian.note_shared_memory()
            self._ready_router(event)
        if isinstance(event, IterationBegins):
            self._come_to_pass(event, listen)
            return
        if isinstance(event, IterationDone):
            event = self._routed(event)
            self._pass_s = event.iteration.elapsed_s
            if self.turns is not None and not event.iteration.warmup:
                iteration = event.iteration.model_copy(update={"round": self.turns.round})
                event = event.model_copy(update={"iteration": iteration})
        listen(event)
        if isinstance(event, Done) and self.turns is not None:
            self._done = True
            self._stop_engine()
            self.turns.finish()

    def _ready_router(self, event: Ready) -> None:
        """Let the router, where there is one, know of what model the engines are."""
        if self.router is None:
            return
        assert event.vocabulary is not None, "replicas behind a router say so"
        try:
            self.router.ready(event.vocabulary)
        except UserError as error:
            raise self._impossible(error) from None

    def _impossible(self, error: UserError) -> LaunchFailed:
        known = diagnose(f"UserError: {error}", "")
        return LaunchFailed(self._replicas[0].phase, replace(known, cause=error.problem, fix=error.remedy))

    def _routed(self, event: IterationDone) -> IterationDone:
        """Return a pass with what the router knows of it, where there is one."""
        if self.router is None:
            return event
        return event.model_copy(update={"iteration": self.router.completed(event.iteration)})

    def _come_to_pass(self, event: IterationBegins, listen: Callable[[Event], None]) -> None:
        """Begin the next pass, for which all replicas are ready; in a block ask for the turn instead."""
        if self._start_s is None:
            self._start_s = time.monotonic() - self._began
        if self.router is not None:
            try:
                self.router.prepare()
            except UserError as error:
                raise self._impossible(error) from None
        if self.turns is None:
            self._begin_pass(event, listen, self._passes())
            return
        warming_up = self._replicas[0].phase == "warmup"
        self._stop_engine()
        self.turns.ask(
            Asks(warming_up=warming_up, start_s=self._start_s, pass_s=self._pass_s, left_s=max(0.0, self._left_s()))
        )

    def _begin_pass(self, event: IterationBegins, listen: Callable[[Event], None], passes: int | None) -> None:
        listen(event)
        self._order_all(go(passes))
        if self.router is not None:
            self.router.begin()

    def _go_on(self, turns: Turns, listen: Callable[[Event], None]) -> bool:
        """Do what the coordinator says; return whether it was to end.

        Raises:
            Interrupted: the coordinator is gone.
        """
        for answer in turns.answers():
            continue_groups([replica.group for replica in self._replicas])
            if isinstance(answer, End):
                self._order_all("end")
                return True
            self._begin_pass(IterationBegins(), listen, answer.passes)
        if not turns.line.is_open:
            raise Interrupted(signal.SIGTERM)
        return False

    def _stop_engine(self) -> None:
        """Stop the engine's processes until the next turn, where it would take time from the cores of whose turn it is.

        vLLM's workers spin for a second after each message before they sleep (`busy_loop_s` of shm_broadcast.py), and
        no setting makes that shorter. On accelerators the host's cores only feed the device. The server of an online
        launch is left alone: timers that ran out while it was stopped would close its connections as the pass begins.
        That of a rollout is stopped, with its client: that client uses no connection again that was idle for longer
        than 2 s (`open_session` in measure/server/stream.py), and the server closes none before 5 s.
        """
        if self.job.spec.platform == "cpu" and self.job.spec.load is None:
            stop_groups([replica.group for replica in self._replicas])

    def _passes(self) -> int | None:
        """Return how many iterations are to count, where `iterations: auto` leaves that to the start and the warm-up.

        None during the warm-up, which has not told yet.
        """
        if self.job.spec.measuring.iterations != "auto" or self._replicas[0].phase != "measuring":
            return None
        return passes_of([self._start_s or 0.0], [self._pass_s or 0.0], [self._left_s()])

    def _left_s(self) -> float:
        """Return for how long the launch may still take, in seconds; time that it waited for its turn is no part."""
        paused_s = 0.0 if self.turns is None else self.turns.paused_s()
        return self._began + paused_s + self.timeout_s - time.monotonic()

    def _order_all(self, line: str) -> None:
        for replica in self._replicas:
            replica.order(line)

    def _wait(self, guardian: Watch, gathering: Gathering) -> list[int]:
        """Return sleeps until something happens; the descriptors that are readable then."""
        pipes = [replica.pipe for replica in self._replicas if replica.told]
        watches = [guardian, *(watch for replica in self._replicas for watch in replica.watches)]
        held = [watch.descriptor for watch in watches if watch.descriptor is not None]
        bereft = [(r.child_ended[1], number) for number, r in enumerate(self._replicas) if r.child_ended is not None]
        turns = [] if self.turns is None else [self.turns.descriptor]
        turns += [] if self.router is None else [self.router.descriptor]
        if self._done:  # what is measured stays so, whatever becomes of the engine
            return self.pauses.wait([self.signals, *turns], POLL_S)
        now = time.monotonic()
        left = [when + PATIENCE_S - now for when, _ in bereft]
        if self.turns is None or not self.turns.waiting:
            left.append(self._left_s())
        if self._stop_by is not None:
            left.append(self._stop_by - now)
        left_s = min(left, default=LONGEST_S)
        if left_s > 0:
            nap_s = left_s if len(held) == len(watches) else min(left_s, POLL_S)
            return self.pauses.wait([self.signals, *turns, *pipes, *held], nap_s)
        if bereft:
            number = min(bereft)[1]
            raise self._failed([number], self._child_crash(self._replicas[number]))
        behind = gathering.behind()
        for number in behind:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._replicas[number].pid, signal.SIGUSR1)  # has it write to the log where it hangs
        time.sleep(0.5)
        raise self._failed(behind, self._overrun(self._replicas[behind[0]].phase))

    def _overrun(self, phase: str) -> Cause:
        if self._stop_by is not None and time.monotonic() >= self._stop_by:
            cause = f"the engine had not ended after {STOP_S:g} s"
            fix = "read the end of the log for where it hung; what it measured is not kept"
            return Cause("stop_timeout", cause, fix)
        cause = f"the launch hung in phase {phase}: not done after {self.timeout_s:g} s"
        fix = "read the end of the log for where it hung; raise timeout_s if the machine is slow or the model large"
        return Cause("timeout", cause, fix)

    def _check_failed(self, number: int, event: Event) -> None:
        """Raise `LaunchFailed` where a replica told that it failed."""
        if not isinstance(event, Failed):
            return
        replica = self._replicas[number]
        replica.check_children()
        if event.category == "crash" and self._out_of_memory():  # of a process that the engine process had started
            raise self._failed([number], died(-signal.SIGKILL, "", out_of_memory=True))
        if event.category:
            raise self._failed([number], Cause(event.category, event.exception, event.fix))
        cause = diagnose(event.exception, replica.log_tail())
        if replica.child_ended is not None and cause.category == "crash":
            cause = self._child_crash(replica)
        raise self._failed([number], cause)

    def _failed(self, numbers: list[int], cause: Cause) -> LaunchFailed:
        """Return that replicas failed, or were waited for, by their numbers unless it is all of them."""
        replica, of = self._replicas[numbers[0]], len(self._replicas)
        if len(numbers) < of:
            named = f"replica{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))} of {of}"
            cause = replace(cause, cause=f"{named}: {cause.cause}")
        return LaunchFailed(replica.phase, cause, replica.log)

    def _child_crash(self, replica: Replica) -> Cause:
        if self._out_of_memory():
            return died(-signal.SIGKILL, "", out_of_memory=True)
        assert replica.child_ended is not None, "called when a process of the engine ended"
        return Cause("crash", f"the engine's process {replica.child_ended[0]} ended without a word", CRASH_FIX)

    def _out_of_memory(self) -> bool:
        return _oom_kills() > self._oom_kills_before


def _oom_kills() -> int:
    """Return how many processes of this cgroup, or else of the machine, the kernel has ended for want of memory."""
    total = 0
    for path, name in (("/sys/fs/cgroup/memory.events", "oom_kill"), ("/proc/vmstat", "oom_kill")):
        with contextlib.suppress(OSError, ValueError):
            for line in Path(path).read_text().splitlines():
                if line.split()[0] == name:
                    total += int(line.split()[1])
    return total
