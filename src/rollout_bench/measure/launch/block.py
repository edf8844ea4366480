"""A block: launches whose engines are alive at the same time and make their passes in turn, in one process.

A launch that is measured alone is a block of one. A job has one block, or several one after the other, in which each
engine measures another workload.

Exactly one launch is served at a time. The others are parked: their engines wait for an order, on a CPU suspended. So
an engine's preparation for its next pass (prompts, garbage collection, clearing a cache) never disturbs another
engine's pass. First each engine starts and makes its warm-up passes, one engine after the other. Then come the rounds:
in each, every engine makes one pass. If a launch fails, the others continue without it; its end is noticed at its next
turn.
"""

import contextlib
import secrets
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass, field
from functools import partial

from rollout_bench.contracts.modes import MODES, mode_of
from rollout_bench.contracts.record import Block
from rollout_bench.contracts.spec import (
    NO_WEIGHTS_NEEDED,
    Spec,
    devices_needed,
    devices_per_replica,
    is_local,
    replicas,
    start_of,
)
from rollout_bench.core.errors import MeasuringFailed, UserError
from rollout_bench.core.model_files import model_files
from rollout_bench.core.processes import members_of
from rollout_bench.measure.launch.hooks import hooks_of
from rollout_bench.measure.launch.outcome import SchedulerCause, recording_failure
from rollout_bench.measure.launch.preflight import check_before_start, engine_environment
from rollout_bench.measure.launch.processes import EngineProcesses
from rollout_bench.measure.launch.progress import Progress, say
from rollout_bench.measure.launch.recorder import CollectorContext, RecordBuilder, folder_for_traces
from rollout_bench.measure.launch.request import LaunchRequest
from rollout_bench.measure.launch.session import LaunchSession
from rollout_bench.measure.launch.starter import starter_for
from rollout_bench.measure.machine.leases import Lease
from rollout_bench.measure.machine.readings import HostMonitor

WORKER = "rollout_bench.measure.engine.worker"
"""Module of the engine process."""


class Engines:
    """The engines of a job, which stay alive between its blocks for launches that start alike.

    Args:
        launches: specs of all launches of the job.
    """

    def __init__(self, launches: Iterable[Spec]) -> None:
        self._to_come = Counter(map(start_of, launches))
        self._kept: dict[str | None, EngineProcesses] = {}
        self._all: list[EngineProcesses] = []

    def take(self, spec: Spec) -> EngineProcesses | None:
        """Return the engine that an earlier launch has left for this one; None if it starts its own."""
        self._to_come[start_of(spec)] -= 1
        return self._kept.pop(start_of(spec), None)

    def add(self, processes: EngineProcesses) -> None:
        """Add an engine that starts."""
        self._all.append(processes)

    def pids(self) -> set[int]:
        """Return the pids of the processes of all engines that are alive."""
        return set(members_of(group for processes in self._all for group in processes.pids()[0]))

    def is_wanted(self, spec: Spec) -> bool:
        """Return whether a later launch can use the engine of this one."""
        return start_of(spec) is not None and self._to_come[start_of(spec)] > 0

    def keep(self, spec: Spec, processes: EngineProcesses) -> None:
        """Keep the engine of a finished launch for a later one."""
        processes.suspend()
        self._kept[start_of(spec)] = processes

    def close(self) -> None:
        """End all engines that are left."""
        for processes in self._kept.values():
            processes.end()


def check_together(requests: Sequence[LaunchRequest]) -> None:
    """Raise `UserError` if the launches cannot share a block."""
    if len({request.out.absolute() for request in requests}) < len(requests):
        raise UserError("two members of the block have the same --out", "give each member a separate record")
    first = _device_needs(requests[0])
    other = next((request for request in requests if _device_needs(request) != first), None)
    if other is not None:
        raise UserError(
            f"{requests[0].name} and {other.name} need {_needs_text(first)} and {_needs_text(_device_needs(other))}",
            "engines that take turns share their devices; measure these two one after the other",
        )


def _device_needs(request: LaunchRequest) -> tuple[str, int, int]:
    spec = request.spec
    return spec.platform, replicas(spec), devices_per_replica(spec)


def _needs_text(needs: tuple[str, int, int]) -> str:
    platform, groups, each = needs
    return f"{groups * each} devices of {platform} ({groups} x {each})"


@dataclass(frozen=True)
class BlockContext:
    """What the launches of a block share.

    Attributes:
        held: the lease on their devices.
        signals: descriptor from `signals_as_descriptor`.
        engines: of the job, for launches that share them.
    """

    held: Lease
    signals: int
    engines: Engines


@dataclass(frozen=True)
class _Measuring:
    """A launch whose engine was started: its session, and what its record is made of.

    Attributes:
        session: its job on the engine.
        collector: makes the record from the engine's events.
        files: identities of the model's files before the start.
    """

    session: LaunchSession
    collector: RecordBuilder
    files: dict[str, str]


@dataclass
class Member:
    """A launch of a block.

    Attributes:
        request: the launch.
        cause_of_job: asks the scheduler why it ends the job.
        is_alone: whether no other engine waits for a turn.
        status: exit status, not 0 if it failed.
    """

    request: LaunchRequest
    cause_of_job: SchedulerCause
    is_alone: bool = False
    status: int = 0
    _has_passes: bool = True
    _writes: bool = False
    _processes: EngineProcesses | None = None
    _measuring: _Measuring | None = None
    _resources: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def do(self, step: Callable[[], None]) -> None:
        """Do a step, unless it has failed; if it fails now, end its engine."""
        if self.status == 0:
            try:
                with recording_failure(self.request.outcome, self._phase, self.cause_of_job):
                    step()
            except UserError as error:
                print(error, file=sys.stderr, flush=True)
                self.status = error.status
                self.close()

    def _phase(self) -> str:
        if self._writes:
            return "writing"
        return "starting" if self._processes is None else self._processes.phase

    def check(self) -> None:
        """Remove files of earlier attempts, and check what can be told before the engine starts.

        Raises:
            MeasuringFailed: if the launch would fail.
        """
        request = self.request
        request.log.parent.mkdir(parents=True, exist_ok=True)
        request.log.write_bytes(b"")
        request.outcome.clear()
        obstacle = check_before_start(request.spec, request.loaded, request.dataset)
        obstacle = obstacle or hooks_of(request.spec).obstacle(request.spec, request.out)
        if obstacle is not None:
            raise MeasuringFailed(*astuple(obstacle))

    def start(self, context: BlockContext) -> None:
        """Start the engine, or take that of an earlier launch, and make the warm-up passes.

        Raises:
            LaunchFailed: if the engine failed.
            Interrupted: if a signal arrived.
        """
        request, spec, engines = self.request, self.request.spec, context.engines
        self._processes = engines.take(spec)
        environment = engine_environment(spec, request.loaded)
        filled_s = _fill_caches(request, context, environment)
        files = _model_files(request)
        traces = self._resources.enter_context(folder_for_traces(spec, request.out))
        environments, hooks = context.held.environments(environment), hooks_of(spec)
        environments *= len(hooks.roles(spec)) or 1
        starter = None
        if self._processes is None:
            self._processes = _processes_for(request, context, environments)
            engines.add(self._processes)
            starter = starter_for(spec, WORKER, environments[0], request.owner, context.signals)
        else:
            note = f"An earlier launch started the engine, whose output is in {self._processes.log}\n"
            request.log.write_text(note)
            if self._processes.router is not None:
                self._processes.router.follow(spec, request.launch, request.source)
        job = request.job(max(1.0, request.timeout_s - filled_s), traces, is_last=not engines.is_wanted(spec))
        devices = devices_needed(spec)
        surroundings = HostMonitor(
            spec.platform,
            environments,
            self._processes.pids,
            context.held,
            self._processes.pauses,
            engines.pids,
            devices,
        )
        progress = Progress(spec, request.launch, request.out)
        given = CollectorContext(spec, request.launch, progress, surroundings, request.loaded, traces)
        collector: RecordBuilder = MODES[spec.mode].collector.get()(given)
        collector.after = list(self._processes.launches)
        session = LaunchSession(self._processes, job, collector.take, hooks.join and partial(hooks.join, spec))
        self._measuring = _Measuring(session, collector, files)
        session.begin(request.name, starter)
        if not collector.after:
            collector.begin_later(self._processes.prepared_s)
        self._advance(session)
        self.warm_up()

    def waits_to_count(self) -> bool:
        """Return whether its next pass counts."""
        return self.status == 0 and self._has_passes and not self._started.session.warming_up

    def warm_up(self) -> None:
        """Make all passes of the warm-up that come next."""
        session = self._started.session
        while self._has_passes and session.warming_up:
            session.go()
            self._advance(session)

    def make_pass(self, number: int, order: list[int], position: int) -> None:
        """Make the pass of round `number`, and add its `position` to the round's `order`."""
        session = self._started.session
        session.go(None if self.is_alone else number)
        self._advance(session)
        order.append(position)

    def _advance(self, session: LaunchSession) -> None:
        """Wait until its next pass can begin, or it has made all; then park it."""
        self._has_passes = session.advance()
        if not self.is_alone:
            session.park()

    def finish(self, context: BlockContext, block: Block) -> None:
        """End the engine, unless a later launch uses it, and write the record.

        Raises:
            UserError: if the record cannot be written.
        """
        self._writes = True
        measured, request = self._started, self.request
        processes, collector = measured.session.processes, measured.collector
        is_wanted = context.engines.is_wanted(request.spec)
        if not is_wanted:
            processes.end()
        # the hub's current commit is known only after the engine has loaded the model
        collector.model_files = measured.files if is_local(request.loaded) else _model_files(request)
        if not self.is_alone:
            collector.block = block.model_copy(update={"waited_s": round(measured.session.waited_s, 3)})
        collector.write("".join(log.read_text(errors="replace") for log in processes.logs), request.out)
        request.outcome.succeeded()
        self._resources.close()
        if is_wanted:
            context.engines.keep(request.spec, processes)
            self._processes = None

    def begin_end(self) -> None:
        """Let its engine begin to end, if there is one; `close` waits for it."""
        if self._processes is not None:
            self._processes.begin_end()

    def close(self) -> None:
        """End its engine, if there is one, and remove temporary files."""
        if self._processes is not None:
            self._processes.end()
        self._resources.close()

    @property
    def _started(self) -> _Measuring:
        assert self._measuring is not None, "was started"
        return self._measuring


def _processes_for(
    request: LaunchRequest, context: BlockContext, environments: Sequence[dict[str, str]]
) -> EngineProcesses:
    """Return the engine that a launch will start, with the environment of each of its processes."""
    spec, hooks = request.spec, hooks_of(request.spec)
    roles = hooks.roles(spec)
    return EngineProcesses(
        WORKER,
        spec.platform,
        request.log,
        environments,
        context.signals,
        cores=[*context.held.cores] * (len(roles) or 1),
        keep_open=[context.held.descriptor],
        router=hooks.feeder and hooks.feeder(spec, request.launch, request.source),
        roles=roles,
        suspends=spec.platform == "cpu" and not mode_of(spec.mode).has_loads,
    )


def _fill_caches(request: LaunchRequest, context: BlockContext, environment: dict[str, str]) -> float:
    """Start the engine once without measuring, if its caches must be warm and no launch has filled them.

    Returns:
        The time that this took, in seconds; it counts against the launch's time limit.

    Raises:
        LaunchFailed: if the engine does not start.
        Interrupted: if a signal arrived.
    """
    marker = hooks_of(request.spec).filling(request.spec, environment)
    if marker is None:
        return 0.0
    began = time.monotonic()
    say(f"{request.out}: starts the engine once to fill its compile caches; this start is not measured")
    log, held = request.log.with_suffix(f".filling{request.log.suffix}"), context.held
    processes = EngineProcesses(
        WORKER,
        request.spec.platform,
        log,
        held.environments(environment),
        context.signals,
        cores=held.cores,
        keep_open=[held.descriptor],
    )
    LaunchSession(processes, request.job(request.timeout_s), lambda _: None).run()
    marker.touch()
    log.unlink(missing_ok=True)
    return time.monotonic() - began


def _model_files(request: LaunchRequest) -> dict[str, str]:
    spec = request.spec
    return model_files(request.loaded, spec.engine.args, weights=spec.load_format not in NO_WEIGHTS_NEEDED)


def measure_block(members: Sequence[Member], context: BlockContext, orders: Iterator[Sequence[str]]) -> None:
    """Measure all launches of a block, each of which has its exit status afterwards.

    No process of an engine is left, but those that later launches of the job use.

    Args:
        members: the launches, the baseline first.
        context: what they share.
        orders: yields the order of the launches' names in each round, without end.

    Raises:
        Interrupted: if a signal arrived.
    """
    names = [member.request.name for member in members]
    rounds: list[list[int]] = []
    try:
        for member in members:
            member.do(partial(member.start, context))
        while any(member.waits_to_count() for member in members):
            rounds.append([])
            for position in map(names.index, next(orders)):
                if members[position].waits_to_count():
                    step = partial(members[position].make_pass, len(rounds) - 1, rounds[-1], position)
                    members[position].do(step)
            for member in members:
                member.do(member.warm_up)  # for a later load of a server
        block = Block(id=secrets.token_hex(8), members=names, order=rounds, waited_s=0.0)
        for member in members:
            member.do(partial(member.finish, context, block))
    finally:
        for member in members:
            member.begin_end()
        for member in members:
            member.close()
