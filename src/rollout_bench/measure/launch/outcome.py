"""How a launch came out, for whoever asks later: the failure that it leaves, and whether another try is of use."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from rollout_bench.contracts.modes import MODES
from rollout_bench.contracts.postmortem import Cause, error_of, failure_of, is_nodes_fault
from rollout_bench.contracts.spec import Spec
from rollout_bench.contracts.store import failure_path, read_failure, write_failure
from rollout_bench.core.errors import UserError
from rollout_bench.core.processes import node_name, scheduler_job
from rollout_bench.measure.launch.progress import say

_EXPERIMENT = re.compile(r"-[0-9a-f]{8}$")


def in_workflow(out: Path) -> bool:
    """Return whether a record is to lie in an experiment's folder, results/<mode>/<experiment>/launch-<i>.json."""
    return _EXPERIMENT.search(out.absolute().parent.name) is not None


@dataclass(frozen=True)
class LaunchOutcome:
    """What is to come of launch `launch` of `spec`: its record at `out`, an absolute path, and its log."""

    spec: Spec
    launch: int
    out: Path
    log: Path

    def is_settled(self, attempt: int | None) -> bool:
        """Return whether the launch is measured already, asked by its try `attempt`, from 1 (None.

        By hand, measured again).

        Raises:
            UserError: as the try before ended, where this one would end in the same way.
        """
        path = failure_path(self.out)
        if (attempt or 0) > 1 and path.exists() and not self.out.exists():
            failure = read_failure(path)
            # written before this run wrote its plan, it may tell of what was mended meanwhile
            plan = self.out.parent.parent.parent / "plan.json"
            of_this_run = not plan.exists() or path.stat().st_mtime >= plan.stat().st_mtime
            if of_this_run and not is_nodes_fault(failure):
                raise error_of(failure, self._name)
        return attempt is not None and self.out.exists()

    def clear(self) -> None:
        """Remove what a try that left no record wrote beside it; side files of a record that is there stay."""
        if not self.out.exists():
            for ending in MODES[self.spec.mode].side_files:
                path = self.out.with_suffix(ending)
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def failed(self, phase: str, cause: Cause, log: Path | None = None) -> UserError:
        """Leave a failure file where the record belongs to an experiment folder; return the error to show.

        `log`: where a replica has one of its own.
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
        """Take back what an earlier try left."""
        failure_path(self.out).unlink(missing_ok=True)

    @property
    def _name(self) -> str:
        return f"{self.spec.title} launch {self.launch}"
