"""One attempt at a launch, from its arguments to its record or failure, alone or in a block."""

import argparse
import contextlib
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import get_args

from rollout_bench.contracts.failures import Cause, state_of
from rollout_bench.contracts.modes import MODES
from rollout_bench.contracts.record import Block
from rollout_bench.contracts.spec import NO_WEIGHTS_NEEDED, Isolation, Spec, WorkloadSpec, devices_needed, is_local
from rollout_bench.contracts.store import reference_path
from rollout_bench.core.errors import MeasuringFailed, UserError
from rollout_bench.core.model_files import model_files
from rollout_bench.core.processes import Interrupted, pause
from rollout_bench.measure.launch.failures import unwritten
from rollout_bench.measure.launch.hooks import hooks_of
from rollout_bench.measure.launch.outcome import LaunchOutcome, in_workflow
from rollout_bench.measure.launch.preflight import (
    check_before_start,
    check_dataset_given,
    engine_environment,
)
from rollout_bench.measure.launch.progress import Progress, say
from rollout_bench.measure.launch.protocol import Job
from rollout_bench.measure.launch.recorder import CollectorContext, RecordBuilder, folder_for_traces
from rollout_bench.measure.launch.starter import starter_for
from rollout_bench.measure.launch.supervisor import EngineLaunch, LaunchFailed
from rollout_bench.measure.machine.device import DeviceError
from rollout_bench.measure.machine.host import BUSY, used_by_others
from rollout_bench.measure.machine.leases import Lease, LeaseRequest, lease
from rollout_bench.measure.machine.readings import HostMonitor
from rollout_bench.workloads.requests import Source

WORKER = "rollout_bench.measure.engine.worker"

SchedulerCause = Callable[[], Cause | None]
"""Asks the scheduler why it ended this process's job; None if it did not, or without a scheduler."""


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that all measuring commands share."""
    parser.add_argument(
        "--timeout-s",
        type=float,
        default=3600.0,
        metavar="SECONDS",
        help="time limit for the whole launch; a longer launch fails (default: %(default)g)",
    )
    parser.add_argument(
        "--isolation",
        choices=get_args(Isolation),
        help="exclusive: no other launch runs on the node; per_device: launches may run on other devices "
        "(default: exclusive on cpu and for endpoints, else per_device)",
    )
    parser.add_argument(
        "--devices",
        type=int,
        metavar="N",
        help="largest number of devices that launches of this workflow hold together; on cpu the cores are divided "
        "into N parts (default: all; on cpu as many as the launch needs)",
    )
    parser.add_argument(
        "--first-device",
        type=int,
        metavar="I",
        help="preferred device, counted from 0 among the visible devices, modulo their number (default: --launch)",
    )
    parser.add_argument(
        "--attempt",
        type=int,
        metavar="N",
        help="number of this attempt, from 1; with it, a launch that has a record is not measured again, and an "
        "attempt after a failure of the experiment (not of the node) ends immediately",
    )
    parser.add_argument(
        "--die-with-parent",
        type=int,
        metavar="PID",
        help="end when process PID ends for any reason; it must be the parent (in a shell: $PPID before exec)",
    )


COMMON = ("timeout_s", "isolation", "devices", "first_device", "attempt", "die_with_parent")
"""Common arguments that are fields of `Assignment`."""


@dataclass(frozen=True)
class Assignment:
    """Arguments of the measuring command for one launch.

    Args:
        spec: the experiment.
        model: folder with the weights, or hub id.
        launch: index of the launch, from 0.
        out: path of the record.
        log: file for the engine's output.
        dataset: the workload's data set, if it has one.
        timeout_s: limit for the whole launch in seconds, without waiting for turns in a block.
        isolation: which other launches may run on the node; None for the default.
        devices: largest number of devices that the workflow's launches hold together; None for all.
        first_device: preferred device; None derives it from the index of the launch.
        attempt: number of the attempt, from 1; None measures again even if a record exists.
        die_with_parent: process of the call that this launch belongs to; None if it is started by hand.
        turn: number of the launch's block in its job; blocks of a job use the same engines one after the other.
    """

    spec: Spec
    model: str
    launch: int
    out: Path
    log: Path
    dataset: Path | None = None
    timeout_s: float = 3600.0
    isolation: Isolation | None = None
    devices: int | None = None
    first_device: int | None = None
    attempt: int | None = None
    die_with_parent: int | None = None
    turn: int = 0

    @property
    def name(self) -> str:
        """Return <mode>/<experiment>."""
        return f"{self.spec.mode}/{self.spec.experiment()}"

    @property
    def wanted(self) -> LeaseRequest:
        """Return what the launch needs from its node."""
        first = self.launch if self.first_device is None else self.first_device
        return LeaseRequest(self.spec, self.out, self.isolation, self.devices, first)

    @property
    def loaded(self) -> str:
        """Return the model for the engine to load: an absolute path or a hub id."""
        local = self.spec.endpoint is None and is_local(self.model)
        return str(Path(self.model).expanduser().absolute()) if local else self.model

    @property
    def owner(self) -> int:
        """Return the process that owns what its launches share."""
        return self.die_with_parent or os.getpid()

    @cached_property
    def outcome(self) -> LaunchOutcome:
        """Return the outcome of the launch."""
        return LaunchOutcome(self.spec, self.launch, self.out.absolute(), self.log)

    def tell_users(self, signals: int) -> None:
        """Print who else uses the cores, if the engine computes on them and a launch would be invalid.

        Raises:
            Interrupted: if a signal arrived.
        """
        if self.spec.platform == "cpu":
            share, who = used_by_others(partial(pause, signals))
            if share > BUSY:
                self.reporting().say(f"others use {100 * share:.0f} % of the cores' time: {who}")

    def source(self, workload: WorkloadSpec, vocabulary: int) -> Source:
        """Return a router's source of requests for a workload, with `vocabulary` token ids."""
        args = self.spec.engine.args
        tokenizer, code = str(args.get("tokenizer") or self.loaded), bool(args.get("trust_remote_code"))
        return Source(workload, vocabulary, tokenizer, self.dataset, code)

    def check_before_start(self) -> None:
        """Remove files of earlier attempts, and check what can be told before the engine starts.

        Raises:
            LaunchFailed: if the launch would fail.
        """
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.outcome.clear()
        obstacle = check_before_start(self.spec, self.loaded, self.dataset)
        obstacle = obstacle or hooks_of(self.spec).obstacle(self.spec, self.out)
        if obstacle is not None:
            self.log.write_text(f"{obstacle.cause}\n{obstacle.fix}\n")
            raise LaunchFailed("starting", obstacle)

    def reporting(self) -> Progress:
        """Return a new progress reporter for the launch."""
        return Progress(self.spec, self.launch, self.out)

    def check(self, spec_file: Path) -> None:
        """Raise `UserError` if the arguments contradict each other or the spec from `spec_file`."""
        folder = self.out.absolute().parent.name
        if in_workflow(self.out) and folder != self.spec.experiment():
            raise UserError(
                f"{self.out}: the spec {spec_file} belongs to experiment {self.spec.experiment()}, not {folder}",
                "give the spec.json in the record's folder, or run the workflow",
            )
        if self.launch < 0 or (
            re.fullmatch(r"launch-\d+\.json", self.out.name) and self.out.name != f"launch-{self.launch}.json"
        ):
            raise UserError(
                f"--launch {self.launch} does not fit --out {self.out}",
                f"give --out .../launch-{abs(self.launch)}.json",
            )
        check_dataset_given(self.spec, self.dataset)
        if self.devices is not None and self.devices < 1:
            raise UserError(f"--devices {self.devices} is not a number of devices", "give a whole number above 0")
        if not 0 < self.timeout_s < 1e8:
            raise UserError(f"--timeout-s {self.timeout_s:g} is not a valid time", "give a number of seconds above 0")


def attempt(assignment: Assignment, signals: int, word: SchedulerCause) -> None:
    """Measure the launch on its own devices.

    Args:
        assignment: the launch.
        signals: descriptor from `signals_as_descriptor`.
        word: asks the scheduler why it ends the job.

    Raises:
        UserError: if the launch failed; a failure file has the details.
        Interrupted: if a signal arrived; nothing was written.
    """
    with recording_failure(assignment, word):
        assignment.check_before_start()
        waiting = assignment.reporting()
        with lease(assignment.wanted, partial(pause, signals), waiting.say) as held:
            assignment.tell_users(signals)
            with contextlib.closing(Launching(assignment, signals, held)) as launching:
                launching.begin()
                while launching.advance():
                    launching.go()
                launching.finish()


def interrupted(assignments: Sequence[Assignment], error: Interrupted, word: SchedulerCause) -> int:
    """Report the interruption; return the exit status.

    If the scheduler names a cause, each launch without a record or failure gets a failure with this cause.
    """
    cause = word()
    if cause is None:
        theirs = all(assignment.spec.endpoint is not None for assignment in assignments)
        engine = "the server was left as it is" if theirs else "the engine was ended"
        say(f"interrupted by {error}: {engine}, nothing was written")
        return 128 + error.number
    status = 1
    for assignment in assignments:
        if state_of(assignment.out) == "missing":
            found = assignment.outcome.failed("interrupted", cause)
            print(found, file=sys.stderr, flush=True)
            status = found.status
    return status


@contextlib.contextmanager
def recording_failure(assignment: Assignment, word: SchedulerCause) -> Iterator[None]:
    """Write a failure file if the launch fails inside the context.

    Raises:
        UserError: the failure, in the words for the user.
    """
    outcome = assignment.outcome
    try:
        yield
    except LaunchFailed as error:
        # when Slurm ends a job, the engine's end can be noticed before our own signal
        cause = word() if error.cause.category == "crash" else None
        raise outcome.failed(error.phase, cause or error.cause, error.log) from None
    except DeviceError as error:
        assignment.log.write_text(f"{error}\n")
        raise outcome.failed("starting", Cause(error.category, error.problem, error.remedy)) from None
    except UserError as error:
        raise outcome.failed("writing", Cause("not_written", error.problem, error.remedy)) from None
    except MeasuringFailed as error:  # before the engine's processes; theirs are of `LaunchFailed`
        raise outcome.failed("starting", Cause(error.category, error.cause, error.fix)) from None
    except OSError as error:
        raise outcome.failed("starting", unwritten(error)) from None
    except Interrupted:
        raise
    except Exception as error:  # a fault of this program, reported like every other failure
        assignment.log.write_text(traceback.format_exc())
        cause = Cause("crash", f"{type(error).__name__}: {error}", "report it with the log: the fault is not yours")
        raise outcome.failed("starting", cause) from None


def _fill_caches(assignment: Assignment, signals: int, held: Lease, environment: dict[str, str]) -> float:
    """Start the engine once without measuring, if its caches must be warm and no launch has filled them.

    Returns:
        The time that this took, in seconds; it counts against the launch's time limit.

    Raises:
        LaunchFailed: if the engine does not start.
        Interrupted: if a signal arrived.
    """
    spec, timeout_s = assignment.spec, assignment.timeout_s
    marker = hooks_of(spec).filling(spec, environment)
    if marker is None:
        return 0.0
    began = time.monotonic()
    say(f"{assignment.out}: starts the engine once to fill its compile caches; this start is not measured")
    log = assignment.log.with_suffix(f".filling{assignment.log.suffix}")
    filling = EngineLaunch(
        module=WORKER,
        job=Job(spec=spec, model=assignment.loaded, dataset=_dataset(assignment), launch=0, timeout_s=timeout_s),
        log=log,
        environments=held.environments(environment),
        timeout_s=timeout_s,
        signals=signals,
        cores=held.cores,
        keep_open=[held.descriptor],
    )
    filling.run(lambda event: None)
    marker.touch()
    log.unlink(missing_ok=True)
    return time.monotonic() - began


def _model_files(assignment: Assignment) -> dict[str, str]:
    spec = assignment.spec
    return model_files(assignment.loaded, spec.engine.args, weights=spec.load_format not in NO_WEIGHTS_NEEDED)


def _dataset(assignment: Assignment) -> str | None:
    return None if assignment.dataset is None else str(assignment.dataset.absolute())


class Launching:
    """A launch while it is measured; whatever happens, `close` must be called.

    Args:
        assignment: the launch.
        signals: descriptor from `signals_as_descriptor`.
        held: the lease on its devices.
        mates: returns the pids of all processes of its block; None outside blocks.
        shared: engine of earlier launches, which this one uses; None starts its own.
        is_last: whether no later launch uses the engine.
    """

    def __init__(
        self,
        assignment: Assignment,
        signals: int,
        held: Lease,
        mates: Callable[[], set[int]] | None = None,
        shared: "Launching | None" = None,
        *,
        is_last: bool = True,
    ) -> None:
        spec = assignment.spec
        self._assignment = assignment
        self._kept = contextlib.ExitStack()
        environment = engine_environment(spec, assignment.loaded)
        timeout_s = max(1.0, assignment.timeout_s - _fill_caches(assignment, signals, held, environment))
        environments, hooks = held.environments(environment), hooks_of(spec)
        roles = hooks.roles(spec)
        processes = len(roles) or 1
        self._files = _model_files(assignment)
        reference = reference_path(assignment.out.absolute(), spec)
        traces = self._kept.enter_context(folder_for_traces(spec, assignment.out))
        self._job = Job(
            spec=spec,
            model=assignment.loaded,
            dataset=_dataset(assignment),
            launch=assignment.launch,
            timeout_s=timeout_s,
            traces=None if traces is None else str(traces),
            reference=None if reference is None else str(reference),
            is_last=is_last,
            ends_on_order=mates is not None or len(environments) * processes > 1,
        )
        self.launch: EngineLaunch
        self._after: list[str] = []
        if shared is None:
            self.launch = EngineLaunch(
                module=WORKER,
                job=self._job,
                log=assignment.log,
                environments=environments * processes,
                timeout_s=timeout_s,
                signals=signals,
                cores=[*held.cores] * processes,
                keep_open=[held.descriptor],
                router=hooks.feeder and hooks.feeder(spec, assignment.launch, assignment.source),
                starter=starter_for(spec, WORKER, environments[0], assignment.owner, signals),
                join=hooks.join and partial(hooks.join, spec),
                roles=roles,
            )
        else:
            self.launch = shared.launch
            if self.launch.router is not None:
                self.launch.router.follow(spec, assignment.launch, assignment.source)
            self._after = [*shared._after, shared._assignment.name]
        launch = self.launch
        devices = devices_needed(spec)
        surroundings = HostMonitor(spec.platform, environments, launch.processes, held, launch.pauses, mates, devices)
        given = CollectorContext(
            spec, assignment.launch, assignment.reporting(), surroundings, assignment.loaded, traces
        )
        self._collecting: RecordBuilder = MODES[spec.mode].collector.get()(given)

    def begin(self) -> None:
        """Start the engine, or give it this launch's job; whether this succeeds or not, `close` must be called."""
        if self._after:
            said = f"An earlier launch started the engine, whose output is in {self.launch.log}\n"
            self._assignment.log.write_text(said)
            self.launch.follow(self._job)
        else:
            self.launch.start()
            self._collecting.begin_later(self.launch.prepared_s)

    def close(self, *, keeps_engine: bool = False) -> None:
        """Remove temporary files, and unless a later launch uses them, end the engine's processes, if there are any."""
        if not keeps_engine:
            self.launch.close()
        self._kept.close()

    def advance(self) -> bool:
        """Wait until the next pass can begin; return False if all are made. See `EngineLaunch.advance`."""
        return self.launch.advance(self._collecting.take)

    def go(self, number: int | None = None) -> None:
        """Begin the next pass; `number` is its round in a block."""
        self.launch.go(self._collecting.take, number)

    def finish(self, block: Block | None = None, *, keeps_engine: bool = False) -> None:
        """End the engine, unless a later launch uses it, and write the record.

        Raises:
            UserError: if the record cannot be written.
        """
        if not keeps_engine:
            self.launch.close()
        collecting, assignment = self._collecting, self._assignment
        # the hub's current commit is known only after the engine has loaded the model
        collecting.model_files = self._files if is_local(assignment.loaded) else _model_files(assignment)
        collecting.block, collecting.after = block, self._after
        collecting.write("".join(log.read_text(errors="replace") for log in self.launch.logs), assignment.out)
        assignment.outcome.succeeded()
