"""A block: launches whose engines are alive at the same time and make their passes in turn, in one process.

A job has one block, or several one after the other, in which each engine measures another workload.

Exactly one launch is served at a time. The others are parked: their engines wait for an order, on a CPU suspended. So
an engine's preparation for its next pass (prompts, garbage collection, clearing a cache) never disturbs another
engine's pass. First each engine starts and makes its warm-up passes, one engine after the other. Then come the rounds:
in each, every engine makes one pass. If a launch fails, the others continue without it; its end is noticed at its next
turn.
"""

import secrets
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from rollout_bench.contracts.record import Block
from rollout_bench.contracts.spec import Spec, devices_per_replica, replicas, start_of
from rollout_bench.core.errors import UserError
from rollout_bench.core.processes import members_of
from rollout_bench.measure.launch.attempt import Assignment, Launching, SchedulerCause, recording_failure
from rollout_bench.measure.launch.supervisor import EngineLaunch
from rollout_bench.measure.machine.leases import Lease


class Engines:
    """The engines of a job, which stay alive between its blocks for launches that start alike.

    Args:
        launches: specs of all launches of the job.
    """

    def __init__(self, launches: Iterable[Spec]) -> None:
        self._to_come = Counter(map(start_of, launches))
        self._alive: dict[str | None, Launching] = {}
        self._started: list[EngineLaunch] = []

    def take(self, spec: Spec) -> Launching | None:
        """Return the launch whose engine this one uses; None if it starts its own."""
        self._to_come[start_of(spec)] -= 1
        return self._alive.pop(start_of(spec), None)

    def add(self, launch: EngineLaunch) -> None:
        """Add an engine that starts, or is used further."""
        self._started.append(launch)

    def processes(self) -> set[int]:
        """Return the pids of the processes of all engines that are alive."""
        return set(members_of(group for launch in self._started for group in launch.processes()[0]))

    def is_wanted(self, spec: Spec) -> bool:
        """Return whether a later launch can use the engine of this one."""
        return start_of(spec) is not None and self._to_come[start_of(spec)] > 0

    def keep(self, spec: Spec, launching: Launching) -> None:
        """Keep the engine of a finished launch for a later one."""
        launching.close(keeps_engine=True)
        launching.launch.park()
        self._alive[start_of(spec)] = launching

    def close(self) -> None:
        """End all engines that are left."""
        for launching in self._alive.values():
            launching.close()


def check_together(assignments: Sequence[Assignment]) -> None:
    """Raise `UserError` if the launches cannot share a block."""
    if len({assignment.out.absolute() for assignment in assignments}) < len(assignments):
        raise UserError("two members of the block have the same --out", "give each member a separate record")
    first = _needs(assignments[0])
    other = next((a for a in assignments if _needs(a) != first), None)
    if other is not None:
        raise UserError(
            f"{assignments[0].name} and {other.name} need {_words(first)} and {_words(_needs(other))}",
            "engines that take turns share their devices; measure these two one after the other",
        )


def _needs(assignment: Assignment) -> tuple[str, int, int]:
    spec = assignment.spec
    return spec.platform, replicas(spec), devices_per_replica(spec)


def _words(needs: tuple[str, int, int]) -> str:
    platform, groups, each = needs
    return f"{groups * each} devices of {platform} ({groups} x {each})"


@dataclass
class Member:
    """A launch of a block.

    Attributes:
        assignment: the launch.
        launching: the launch while it is measured; None before its start.
        is_alone: whether no other engine waits for a turn.
        has_passes: whether it is ready for a further pass.
        status: exit status, not 0 if it failed.
    """

    assignment: Assignment
    is_alone: bool = False
    launching: Launching | None = None
    has_passes: bool = True
    status: int = 0

    @property
    def under_way(self) -> Launching:
        """The launch, which has started."""
        assert self.launching is not None, "was started"
        return self.launching

    @property
    def waits_to_count(self) -> bool:
        """Whether its next pass counts."""
        return self.status == 0 and self.has_passes and not self.under_way.launch.warming_up

    def advance(self) -> None:
        """Wait until its next pass can begin, or it has made all; then park it."""
        self.has_passes = self.under_way.advance()
        if not self.is_alone:
            self.under_way.launch.park()

    def warm_up(self) -> None:
        """Make all passes of the warm-up that come next."""
        while self.has_passes and self.under_way.launch.warming_up:
            self.under_way.go()
            self.advance()

    def make_pass(self, number: int, order: list[int], position: int) -> None:
        """Make the pass of round `number`, and add its `position` to the round's `order`."""
        self.under_way.go(number)
        self.advance()
        order.append(position)

    def close(self) -> None:
        """End its engine, if there is one."""
        if self.launching is not None:
            self.launching.close()


@dataclass
class BlockRun:
    """Measures the launches of one block.

    Args:
        assignments: the launches, the baseline first.
        held: the lease on the devices that all launches share.
        orders: yields the order of the launches' names in each round, without end.
        signals: descriptor from `signals_as_descriptor`.
        word: asks the scheduler why it ends the job.
        engines: of the job, for launches that share them.
    """

    assignments: Sequence[Assignment]
    held: Lease
    orders: Iterator[Sequence[str]]
    signals: int
    word: SchedulerCause
    engines: Engines
    _rounds: list[list[int]] = field(default_factory=list)
    _id: str = field(default_factory=lambda: secrets.token_hex(8))

    def run(self) -> list[int]:
        """Measure all launches and return their exit statuses; no process of an engine is left.

        Raises:
            Interrupted: if a signal arrived.
        """
        members = [Member(assignment, len(self.assignments) == 1) for assignment in self.assignments]
        positions = {assignment.name: position for position, assignment in enumerate(self.assignments)}
        try:
            for member in members:
                self._do(member, partial(self._start, member))
            while any(member.waits_to_count for member in members):
                self._rounds.append([])
                for position in map(positions.__getitem__, next(self.orders)):
                    if (member := members[position]).waits_to_count:
                        step = partial(member.make_pass, len(self._rounds) - 1, self._rounds[-1], position)
                        self._do(member, step)
                for member in members:
                    self._do(member, member.warm_up)  # for a later load of a server
            for member in members:
                self._do(member, partial(self._finish, member))
        finally:
            for member in members:
                if member.launching is not None:
                    member.launching.launch.begin_end()
            for member in members:
                member.close()
        return [member.status for member in members]

    def _start(self, member: Member) -> None:
        member.assignment.check_before_start()
        spec = member.assignment.spec
        shared, is_last = self.engines.take(spec), not self.engines.is_wanted(spec)
        try:
            member.launching = Launching(
                member.assignment, self.signals, self.held, self.engines.processes, shared, is_last=is_last
            )
        except BaseException:
            if shared is not None:
                shared.close()
            raise
        self.engines.add(member.launching.launch)
        member.launching.begin()
        member.advance()
        member.warm_up()

    def _finish(self, member: Member) -> None:
        block = Block(
            id=self._id,
            members=[assignment.name for assignment in self.assignments],
            order=self._rounds,
            waited_s=round(member.under_way.launch.waited_s, 3),
        )
        spec, launching = member.assignment.spec, member.under_way
        is_wanted = self.engines.is_wanted(spec)
        launching.finish(None if member.is_alone else block, keeps_engine=is_wanted)
        if is_wanted:
            self.engines.keep(spec, launching)
            member.launching = None

    def _do(self, member: Member, step: Callable[[], None]) -> None:
        """Do a step of a launch, unless it has failed; if it fails now, end its engine."""
        if member.status == 0:
            try:
                with recording_failure(member.assignment, self.word):
                    step()
            except UserError as error:
                print(error, file=sys.stderr, flush=True)
                member.status = error.status
                member.close()
