"""The processes of an engine: starts them under a guardian, carries orders and events, and always ends them.

supervisor  -- job, go (stdin) ->  engine process of each replica (own session) --- engine core, workers
    |       <-- events (pipe) ---
    |       <-- sequences (sockets) -->  in a rollout: from the router, a thread of the supervisor's process
    +--- pipe held open --->  guardian (own session; ends the engines' sessions at end of file)

Most engines have one process. With several, replicas of a rollout or ranks of a placement, each gets the same job.
"""

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

from rollout_bench.contracts.failures import CRASH_FIX, Cause
from rollout_bench.contracts.spec import Platform
from rollout_bench.core.errors import MeasuringFailed
from rollout_bench.core.processes import Group, Interrupted, members_of, signal_groups
from rollout_bench.measure.launch.engine_process import EngineProcess, start_process
from rollout_bench.measure.launch.failures import cause_of_death, diagnose
from rollout_bench.measure.launch.guardian import Guardian, scratch
from rollout_bench.measure.launch.hooks import RequestRouter
from rollout_bench.measure.launch.preparation import prepare
from rollout_bench.measure.launch.protocol import PEER_LOST, SERVER, Event, Failed, Job, Ready
from rollout_bench.measure.machine import inventory
from rollout_bench.measure.machine.host import number_in
from rollout_bench.measure.machine.readings import PauseDetector

PATIENCE_S = 20.0
"""Time for the engine process to notice that one of its child processes ended, in seconds."""

CAUSE_S = 5.0
"""Time to wait for another rank's failure after a rank has only lost it, in seconds."""

POLL_S = 0.5
"""Interval between checks for ended processes if the kernel has no pidfd, in seconds."""


class LaunchFailed(MeasuringFailed):
    """A launch failed in a phase that its failure knows: each process has its own.

    Args:
        phase: the phase in which it failed.
        cause: the reason.
        log: log with the details, if it is not the launch's own log.
    """

    def __init__(self, phase: str, cause: Cause, log: Path | None = None) -> None:
        self.phase, self.log = phase, log
        super().__init__(cause.category, cause.cause, cause.fix)


@dataclass
class EngineProcesses:
    """The processes of an engine. It does the jobs of launches, one after the other.

    Args:
        module: the engine process's module, run with `python -m`.
        platform: kind of device.
        log: file for the output of process 0; the other logs lie beside it.
        environments: the environment of each process.
        signals: descriptor from `signals_as_descriptor`.
        cores: the cores that each process may use, None for all; if empty, all processes may use all cores.
        keep_open: descriptors that stay open until the engine has ended, even if this process is killed: they hold the
            locks of the devices.
        router: distributes the sequences of each pass to the replicas; None if each process makes its own.
        roles: work of each process, if they are the ranks of a placement.
        suspends: whether an engine that waits is suspended, because it would use cores of the one that is measured.
    """

    module: str
    platform: Platform
    log: Path
    environments: Sequence[dict[str, str]]
    signals: int
    cores: Sequence[Set[int] | None] = ()
    keep_open: Sequence[int] = ()
    router: RequestRouter | None = None
    roles: Sequence[str] = ()
    suspends: bool = False
    pauses: PauseDetector = field(default_factory=PauseDetector)
    """Notices pauses of the machine during a pass."""
    launches: list[str] = field(default_factory=list)
    """Names of the launches whose jobs it did or does."""
    prepared_s: float = 0.0
    """Time of the user's command before the start, in seconds."""
    _processes: list[EngineProcess] = field(default_factory=list)
    _guardian: Guardian | None = None
    _oom_kills_before: int = 0
    _kept: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @property
    def logs(self) -> list[Path]:
        """The log of each process."""
        others = range(1, len(self.environments))
        return [self.log, *(self.log.with_suffix(f".replica-{number}{self.log.suffix}") for number in others)]

    @property
    def is_started(self) -> bool:
        """Whether the processes were started."""
        return bool(self._processes)

    @property
    def phase(self) -> str:
        """Phase of process 0; `starting` before it is there."""
        return self._processes[0].phase if self._processes else "starting"

    def pids(self) -> tuple[list[Group], set[int]]:
        """Return the engine's sessions, if it has started, and the pids of the supervisor and the guardian."""
        guardian = set() if self._guardian is None else {self._guardian.pid}
        return [process.group for process in self._processes], {os.getpid(), *guardian}

    def start(self, before: Sequence[str] | None, until: float, starter: Path | None = None) -> None:
        """Start all processes; whether this succeeds or not, `end` must be called.

        Args:
            before: the user's command that comes first.
            until: latest end of this command, on the monotonic clock.
            starter: socket of the starter that forks the engine; None starts a new program.

        Raises:
            LaunchFailed: if the user's command failed.
            Interrupted: if a signal arrived.
        """
        for log in self.logs:
            log.write_bytes(b"")
        log_file = self._kept.enter_context(self.log.open("ab"))
        temporary, descriptor = self._kept.enter_context(scratch())
        environments = [{**environment, "TMPDIR": str(temporary)} for environment in self.environments]
        guardian = Guardian(log_file, environments[0], temporary, [*self.keep_open, descriptor])
        self._guardian = guardian
        self._kept.callback(self._end, guardian)
        if before is not None:
            self._run_before(before, until, log_file, environments[0], guardian)
        count = len(environments)
        lines: Sequence[int | None] = [None] * count if self.router is None else self.router.connect(count)
        for each in zip(environments, self.cores or [None] * count, self.logs, lines, strict=True):
            self._processes.append(start_process(self.module, *each, starter))
            guardian.watch(self._processes[-1].group)
        if self.router is not None:
            self.router.connected()

    def _run_before(
        self, command: Sequence[str], until: float, log: IO[bytes], environment: dict[str, str], guardian: Guardian
    ) -> None:
        began = time.monotonic()
        cause = prepare(command, environment, log, until, self.signals, guardian.watch)
        if cause is not None:
            raise LaunchFailed("starting", cause)
        self.prepared_s = time.monotonic() - began

    def send(self, job: Job, name: str) -> None:
        """Give each process the job of the launch with that name; a job after the first differs in the workload."""
        self._oom_kills_before = _oom_kills()
        for number, process in enumerate(self._processes):
            line = None if self.launches else process.line
            process.order(job.model_copy(update={"replica": number, "line": line}).model_dump_json())
        self.launches.append(name)

    def go(self) -> None:
        """Let all processes begin the pass for which they are ready."""
        for process in self._processes:
            process.order("go")
        if self.router is not None:
            self.router.begin()

    def suspend(self) -> None:
        """Suspend the engine until `resume` if it would use cores of the engine that is measured.

        vLLM's workers spin for a second after each message before they sleep (`busy_loop_s` of shm_broadcast.py), and
        no setting shortens this.

        The server of a rollout is suspended together with its client. The client reuses no connection that was idle
        for more than 2 s (`open_session` in measure/server/stream.py), and the server closes none before 5 s.
        """
        if self.suspends:
            signal_groups(self.pids()[0], signal.SIGSTOP)

    def resume(self) -> None:
        """Let a suspended engine run again."""
        if self.suspends:
            signal_groups(self.pids()[0], signal.SIGCONT)

    def events(self, until: float) -> Iterator[tuple[int, Event]]:
        """Wait once until something happens, at most `until` on the monotonic clock; yield number and event of each.

        Raises:
            LaunchFailed: if a process failed or ended.
            Interrupted: if a signal arrived.
        """
        readable = self._wait(until)
        if self.signals in readable:
            raise Interrupted(os.read(self.signals, 1)[0])
        if self.router is not None and self.router.descriptor in readable:
            self.router.check()
        if self._guardian is not None:
            self._guardian.replace_if_dead()
        for number, process in enumerate(self._processes):
            if process.pipe in readable:
                for event in process.read():
                    if isinstance(event, Failed):
                        self._take_failure(number, event)
                        continue
                    if isinstance(event, Ready) and self._guardian is not None:
                        self._guardian.note_shared_memory()
                    yield number, event
            elif process.ended() and not process.lost:
                if self._guardian is not None:
                    self._guardian.end()
                raise self.failure([number], cause_of_death(process.wait(), process.log_tail(), self._out_of_memory()))
            process.check_children()

    def _wait(self, until: float) -> list[int]:
        """Wait until something happens; return the descriptors that are then readable.

        Raises:
            LaunchFailed: if a process had lost another one for too long.
        """
        awaited = [self.signals, *(process.pipe for process in self._processes if process.sends)]
        awaited += [] if self.router is None else [self.router.descriptor]
        watches = [watch for process in self._processes if not process.lost for watch in process.watches]
        watches += [] if self._guardian is None else [self._guardian.watched]
        held = [watch.descriptor for watch in watches if watch.descriptor is not None]
        bereft = [(p.child_ended[1], number) for number, p in enumerate(self._processes) if p.child_ended is not None]
        lost = [(*p.lost, number) for number, p in enumerate(self._processes) if p.lost is not None]
        limits = [until, *(when + PATIENCE_S for when, _ in bereft), *(when + CAUSE_S for _, when, _ in lost)]
        if (left_s := min(limits) - time.monotonic()) > 0:
            nap_s = left_s if len(held) == len(watches) else min(left_s, POLL_S)
            return self.pauses.wait([*awaited, *held], nap_s)
        if lost:
            cause, _, number = lost[0]
            raise self.failure([number], cause)
        if bereft:
            number = min(bereft)[1]
            raise self.failure([number], self._child_crash(self._processes[number]))
        return []

    def _take_failure(self, number: int, event: Failed) -> None:
        """Raise `LaunchFailed` for the failure of a process, unless it only lost another one, which has the cause."""
        process = self._processes[number]
        process.check_children()
        if event.category == PEER_LOST:
            process.lost = process.lost or (Cause("crash", event.exception, event.fix), time.monotonic())
            return
        cause = Cause(event.category, event.exception, event.fix)
        if not event.category:
            cause = diagnose(event.exception, process.log_tail())
        # the kernel may have killed a child of the engine process, whose end may also be all that is known
        silent = process.child_ended is not None and process.child_ended[0] != SERVER and not event.category
        if cause.category == "crash" and (self._out_of_memory() or silent):
            cause = self._child_crash(process)
        raise self.failure([number], cause)

    def failure(self, numbers: Sequence[int], cause: Cause) -> LaunchFailed:
        """Return the failure of these processes; its text names them unless all are meant."""
        process, of = self._processes[numbers[0]], len(self._processes)
        if len(numbers) < of:
            what = f"{'rank' if self.roles else 'replica'}{'s' if len(numbers) > 1 else ''}"
            named = f"{what} {', '.join(map(str, numbers))} of {of}"
            if self.roles:
                named += f" ({'; '.join(self.roles[number] for number in numbers)})"
            cause = replace(cause, cause=f"{named}: {cause.cause}")
        if cause.category == "crash" and not shutil.disk_usage(process.log).free:  # which ends who writes there
            fix = "free some space there, then run the same command again"
            cause = Cause("disk_full", f"the file system of {process.log} is full: {cause.cause}", fix)
        return LaunchFailed(process.phase, cause, process.log)

    def phase_of(self, number: int) -> str:
        """Return the phase of a process."""
        return self._processes[number].phase

    def print_stacks(self, numbers: Iterable[int]) -> None:
        """Let these processes write the stacks of their threads to their logs."""
        for number in numbers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._processes[number].pid, signal.SIGUSR1)
        time.sleep(0.5)

    def begin_end(self) -> None:
        """Let the guardian begin to end the engine, if it was started; `end` waits for it."""
        if self._guardian is not None:
            self._guardian.begin_end()

    def end(self) -> None:
        """End the engine's processes, if there are any, and release everything."""
        self._kept.close()

    def _end(self, guardian: Guardian) -> None:
        pids = set(members_of(self.pids()[0]))
        guardian.end()
        for process in self._processes:
            process.close()
        if self.router is not None:
            self.router.close()
        inventory.wait_until_free(lambda: inventory.pids_on(self.platform) & pids)

    def _child_crash(self, process: EngineProcess) -> Cause:
        if self._out_of_memory():
            return cause_of_death(-signal.SIGKILL, "", out_of_memory=True)
        assert process.child_ended is not None, "called when a process of the engine ended"
        return Cause("crash", f"the engine's process {process.child_ended[0]} ended without a word", CRASH_FIX)

    def _out_of_memory(self) -> bool:
        return _oom_kills() > self._oom_kills_before


def _oom_kills() -> int:
    """Return the number of out-of-memory kills in this cgroup plus those on the machine."""
    counters = "/sys/fs/cgroup/memory.events", "/proc/vmstat"
    return sum(number_in(path, r"^oom_kill (\d+)") or 0 for path in counters)
