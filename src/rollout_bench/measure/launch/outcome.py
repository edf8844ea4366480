"""The outcome of a launch: its failure file, and whether another attempt is useful."""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from rollout_bench.contracts.failures import Cause, error_of, failure_of, is_nodes_fault
from rollout_bench.contracts.modes import MODES
from rollout_bench.contracts.spec import Spec
from rollout_bench.contracts.store import failure_path, read_failure, write_failure
from rollout_bench.core.errors import UserError
from rollout_bench.core.processes import node_name, scheduler_job
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
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

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
