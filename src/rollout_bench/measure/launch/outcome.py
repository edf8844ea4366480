"""The outcome of a launch: its failure file, and whether another attempt is useful."""

import contextlib
import re
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rollout_bench.contracts.failures import Cause, error_of, failure_of, is_nodes_fault, state_of
from rollout_bench.contracts.modes import MODES
from rollout_bench.contracts.spec import Spec
from rollout_bench.contracts.store import failure_path, read_failure, write_failure
from rollout_bench.core.errors import UserError
from rollout_bench.core.processes import Interrupted, node_name, scheduler_job
from rollout_bench.measure.launch.failures import cause_of
from rollout_bench.measure.launch.processes import LaunchFailed
from rollout_bench.measure.launch.progress import say

_EXPERIMENT = re.compile(r"-[0-9a-f]{8}$")


def in_workflow(out: Path) -> bool:
    """Return whether a record belongs to an experiment's folder, results/<mode>/<experiment>/launch-<i>.json."""
    return _EXPERIMENT.search(out.absolute().parent.name) is not None


@dataclass(frozen=True)
class LaunchOutcome:
    """Outcome of launch `launch` of `spec`: its record at the absolute path `out`, and its log."""

    spec: Spec
    launch: int
    out: Path
    log: Path

    def is_settled(self, attempt: int | None) -> bool:
        """Return whether the launch is already measured.

        Args:
            attempt: number of the attempt, from 1; None for a launch by hand, which is always measured again.

        Raises:
            UserError: the previous attempt's error, if another attempt would fail in the same way.
        """
        path = failure_path(self.out)
        if (attempt or 0) > 1 and path.exists() and not self.out.exists():
            failure = read_failure(path)
            # a failure older than this run's plan may have been fixed meanwhile
            plan = self.out.parent.parent.parent / "plan.json"
            of_this_run = not plan.exists() or path.stat().st_mtime >= plan.stat().st_mtime
            if of_this_run and not is_nodes_fault(failure):
                raise error_of(failure, self._name)
        return attempt is not None and self.out.exists()

    def clear(self) -> None:
        """Remove files of an attempt that left no record; side files of an existing record stay."""
        if not self.out.exists():
            for ending in MODES[self.spec.mode].side_files:
                path = self.out.with_suffix(ending)
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)

    def failed(self, phase: str, cause: Cause, log: Path | None = None) -> UserError:
        """Write a failure file if the record belongs to an experiment's folder; return the error to show.

        `log` is the replica's log, if it is not the launch's log.
        """
        where = str(log or self.log), node_name(), scheduler_job()
        failure = failure_of(self.spec.experiment(), self.launch, phase, cause, *where)
        if in_workflow(self.out):
            try:
                write_failure(self.out, failure)
            except UserError as error:
                say(str(error))
        return error_of(failure, self._name)

    def succeeded(self) -> None:
        """Remove the failure file of an earlier attempt."""
        failure_path(self.out).unlink(missing_ok=True)

    @property
    def _name(self) -> str:
        return f"{self.spec.title} launch {self.launch}"


SchedulerCause = Callable[[], Cause | None]
"""Asks the scheduler why it ended this process's job; None if it did not, or without a scheduler."""


@contextlib.contextmanager
def recording_failure(outcome: LaunchOutcome, phase: Callable[[], str], cause_of_job: SchedulerCause) -> Iterator[None]:
    """Write a failure file if the launch fails inside the context.

    Args:
        outcome: of the launch.
        phase: returns the phase of its engine, `starting` before there is one.
        cause_of_job: asks the scheduler why it ends the job.

    Raises:
        UserError: the failure, in the words for the user.
    """
    try:
        yield
    except LaunchFailed as error:
        # when Slurm ends a job, the engine's end can be noticed before our own signal
        cause = cause_of_job() if error.category == "crash" else None
        raise outcome.failed(error.phase, cause or cause_of(error, error.phase), error.log) from None
    except Interrupted:
        raise
    except Exception as error:
        text = f"{error}\n" if isinstance(error, UserError | OSError) else traceback.format_exc()
        with contextlib.suppress(OSError), outcome.log.open("a") as log:  # the engine said nothing of it
            log.write(text)
        raise outcome.failed(phase(), cause_of(error, phase())) from None


def interrupted(launches: Sequence[LaunchOutcome], error: Interrupted, cause_of_job: SchedulerCause) -> int:
    """Report the interruption; return the exit status.

    If the scheduler names a cause, each launch without a record or failure gets a failure with this cause.
    """
    cause = cause_of_job()
    if cause is None:
        theirs = all(launch.spec.endpoint is not None for launch in launches)
        engine = "the server was left as it is" if theirs else "the engine was ended"
        say(f"interrupted by {error}: {engine}, nothing was written")
        return 128 + error.number
    status = 1
    for launch in launches:
        if state_of(launch.out) == "missing":
            error_shown = launch.failed("interrupted", cause)
            print(error_shown, file=sys.stderr, flush=True)
            status = error_shown.status
    return status
