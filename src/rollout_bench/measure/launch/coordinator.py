"""The coordinator of a block: holds the devices, starts a process for each launch, and grants the turns.

coordinator -- holds the lease for all
    |-- launch   like a process of `run_launch.py`: guardian, engine, limits, record, failure; asks for its turns
    |-- launch
    `-- ...

When the coordinator ends, for any reason, the processes of its launches end too. If a launch ends early, the
coordinator continues with the others.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rollout_bench.contracts.modes import mode_of
from rollout_bench.contracts.postmortem import Cause
from rollout_bench.contracts.record import Block
from rollout_bench.contracts.spec import devices_per_replica, replicas
from rollout_bench.core.errors import UserError
from rollout_bench.core.processes import STOPPING, Interrupted, descendants, is_orphan_of, signals_as_descriptor
from rollout_bench.measure.launch.attempt import Assignment, Seat, Word, attempt
from rollout_bench.measure.launch.forked import Imported
from rollout_bench.measure.launch.progress import say
from rollout_bench.measure.launch.rotation import Grant, Orders, Rotation, Start, Started
from rollout_bench.measure.launch.turns import Asks, End, Finished, Line, Turn, Turns, line
from rollout_bench.measure.machine.leases import Lease
from rollout_bench.measure.machine.scratch import end_left_behind

LONGEST_S = 180.0
"""Time limit for a launch to end on request: it waits 90 s for its guardian, then ends processes itself for 70 s."""

KILLED = Cause(
    "killed",
    "the launch's process was killed (SIGKILL), and left no word",
    "run the same command again; where nobody killed it, memory may have run out: look at dmesg",
)

Begin = Callable[[Assignment, int, Word, Seat], int]
"""Measures a launch in its seat, with the descriptor of its signals, and returns its exit status."""


def check_together(assignments: Sequence[Assignment], at_once: int) -> None:
    """Raise `UserError` if the launches cannot share a block."""
    if len({assignment.out.absolute() for assignment in assignments}) < len(assignments):
        raise UserError("two members of the block have the same --out", "give each member a separate record")
    if at_once < 2:
        raise UserError(
            f"--at-once {at_once} is too small for a block", "give at least 2, or measure each with run_launch.py"
        )
    first = _needs(assignments[0])
    other = next((a for a in assignments if _needs(a) != first), None)
    if other is not None:
        raise UserError(
            f"{assignments[0].name} and {other.name} need {_words(first)} and {_words(_needs(other))}",
            "engines that take turns share their devices; measure these two one after the other",
        )
    bound = next((a for a in assignments if mode_of(a.spec.mode).has_loads), None)
    if bound is not None and at_once < len(assignments):
        raise UserError(
            f"--at-once {at_once} of {len(assignments)}: {bound.name} runs its passes once, not beside every group",
            "set --at-once to the number of members, or measure them one after the other",
        )


def _needs(assignment: Assignment) -> tuple[str, int, int]:
    spec = assignment.spec
    return spec.platform, replicas(spec), devices_per_replica(spec)


def _words(needs: tuple[str, int, int]) -> str:
    platform, groups, each = needs
    return f"{groups * each} devices of {platform} ({groups} x {each})"


@dataclass
class _Launched:
    """The process of a launch."""

    pid: int
    line: Line
    status: int | None = None


@dataclass
class Coordinator:
    """Runs the launches of one block.

    Args:
        assignments: the launches, the baseline first.
        held: the lease on the devices that all launches share.
        rotation: decides which launch has the turn.
        signals: descriptor from `signals_as_descriptor`.
        word: asks the scheduler why it ends the job.
        begin: measures a launch in its own process.
        imported: import of the engine in this process, to fork engines from; None starts engines as new programs.
    """

    assignments: Sequence[Assignment]
    held: Lease
    rotation: Rotation
    signals: int
    word: Word
    begin: Begin = attempt
    imported: Imported | None = None
    _id: str = field(default_factory=lambda: secrets.token_hex(8))
    _launched: dict[int, _Launched] = field(default_factory=dict)

    def run(self) -> list[int]:
        """Measure all launches and return their exit statuses, after all their processes have ended.

        Raises:
            Interrupted: if a signal arrived; all launches have ended.
        """
        try:
            while not self.rotation.is_over:
                for step in self.rotation.steps():
                    if isinstance(step, Start):
                        self._start(step.position)
                    elif isinstance(step, Grant):
                        self._launched[step.position].line.say(Turn(round=step.round, passes=step.passes))
                    else:
                        self._launched[step.position].line.say(End(block=self._block()))
                if not self.rotation.is_over:
                    self._listen()
        except BaseException:
            self._end_all()
            raise
        return [self._status(position) for position in range(len(self.assignments))]

    def _start(self, position: int) -> None:
        ours, theirs = line()
        sys.stdout.flush()
        sys.stderr.flush()
        coordinator = os.getpid()
        others = [ours, *(launched.line for launched in self._launched.values() if launched.status is None)]
        # Until the new process has its own descriptor, it shares ours: its signals would arrive here and be lost.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
        try:
            pid = os.fork()
            if pid == 0:
                _be_launch(
                    coordinator, mask, lambda signals: self._begin(position, signals, theirs, others, coordinator)
                )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        theirs.close()
        self._launched[position] = _Launched(pid, ours)

    def _begin(self, position: int, signals: int, theirs: Line, others: Sequence[Line], coordinator: int) -> int:
        for other in others:
            other.close()
        seat = Seat(self.held, Turns(theirs), lambda: descendants(coordinator), self.imported)
        return self.begin(self.assignments[position], signals, self.word, seat)

    def _listen(self) -> None:
        """Wait until a launch sends a message or ends.

        Raises:
            Interrupted: if a signal arrived.
        """
        alive = {launched.line.descriptor: p for p, launched in self._launched.items() if launched.status is None}
        assert alive, "a block whose launches are not over has one that lives, or something to do"
        readable = select.select([self.signals, *alive], [], [])[0]
        if self.signals in readable:
            raise Interrupted(os.read(self.signals, 1)[0])
        for descriptor in readable:
            position = alive[descriptor]
            launched = self._launched[position]
            for message in launched.line.heard():
                if isinstance(message, Asks):
                    self.rotation.asked(position, message)
                elif isinstance(message, Finished):
                    self.rotation.finished(position)
            if not launched.line.is_open:
                self._reap(launched)
                self.rotation.gone(position)
                self._tell_if_killed(position, launched)

    def _reap(self, launched: _Launched) -> None:
        launched.line.close()
        launched.status = os.waitstatus_to_exitcode(os.waitpid(launched.pid, 0)[1])

    def _tell_if_killed(self, position: int, launched: _Launched) -> None:
        if launched.status is None or launched.status >= 0:
            return
        assignment = self.assignments[position]
        # If its guardian was killed too, parts of the engine may still run. A dying process closes its socket
        # shortly before it releases the lock on its folder.
        for _ in range(20):
            if end_left_behind(say):
                break
            time.sleep(0.05)
        cause = KILLED
        if launched.status != -signal.SIGKILL:
            name = signal.Signals(-launched.status).name
            cause = Cause("crash", f"the launch's process ended by {name}", "report it with the log")
        print(assignment.outcome.failed("ended", cause), file=sys.stderr, flush=True)
        launched.status = 1

    def _end_all(self) -> None:
        """End all launches and wait until they and their engines have ended.

        A launch that does not end within `LONGEST_S` seconds is killed; its guardian then ends its engine.
        """
        left = {p: launched for p, launched in self._launched.items() if launched.status is None}
        for launched in left.values():
            os.kill(launched.pid, signal.SIGTERM)
        deadline = time.monotonic() + LONGEST_S
        for launched in left.values():
            while launched.line.is_open and time.monotonic() < deadline:
                if select.select([launched.line.descriptor], [], [], 1.0)[0]:
                    launched.line.heard()
            if launched.line.is_open:
                os.kill(launched.pid, signal.SIGKILL)
            self._reap(launched)

    def _block(self) -> Block:
        return Block(
            id=self._id,
            members=[assignment.name for assignment in self.assignments],
            at_once=self.rotation.most_alive,
            order=self.rotation.rounds,
            started=self.rotation.started,
            waited_s=0.0,
        )

    def _status(self, position: int) -> int:
        status = self._launched[position].status
        assert status is not None, "the block is over once all launches are gone"
        return status


def _be_launch(coordinator: int, mask: set[int], begin: Callable[[int], int]) -> None:
    """Run one launch in its forked process, then exit; this never returns to the coordinator's code.

    Args:
        coordinator: pid of the parent.
        mask: signals to block once `begin` can read the signals in `STOPPING`.
        begin: measures the launch, with the descriptor of its signals, and returns the exit status.
    """
    status = 1
    try:
        with signals_as_descriptor() as signals:
            orphan = is_orphan_of(coordinator)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            status = 128 + signal.SIGTERM if orphan else begin(signals)
    except UserError as error:
        print(error, file=sys.stderr)
        status = error.status
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stderr.flush()
        os._exit(status)  # the coordinator releases its own resources


def rotation_of(assignments: Sequence[Assignment], orders: Orders, at_once: int, started: Started) -> Rotation:
    """Return the rotation for a block of these launches."""
    iterations = [assignment.spec.measuring.iterations for assignment in assignments]
    return Rotation(
        [assignment.name for assignment in assignments],
        [None if number == "auto" else number for number in iterations],
        orders,
        at_once,
        started,
    )
