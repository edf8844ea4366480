"""The post-mortem of a launch: whether it left a record, else how far it came, why it ended there, and what to do.

Whoever saw a launch end turns what it left (an exception, a log, an exit status, the state of a job) into a `Cause`:
`measure/launch/failures.py` for the engine, `cluster/slurm.py` for the scheduler. All else is here, so that every
command says the same of it: how a failure is written, worded, and whose fault it is.

Imported while the workflow is parsed, so no large library.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rollout_bench.contracts.record import SCHEMA_VERSION, Failure
from rollout_bench.contracts.store import failure_path, read_failure
from rollout_bench.core.errors import UserError

State = Literal["measured", "failed", "missing"]


NODE_STATUS = 75
"""Exit status where the node was at fault: EX_TEMPFAIL of sysexits.h, another try elsewhere may succeed."""

NODE_FAULTS = frozenset(
    {
        "cann_missing",
        "cuda_driver",
        "device_broken",
        "device_memory_taken",
        "disk_full",
        "no_platform",
        "node_failure",
        "port_or_ipc",
        "preempted",
    }
)
"""Categories that are no fault of what is measured: the same launch may well succeed on another node."""


@dataclass(frozen=True)
class Cause:
    """Why a launch failed.

    Args:
        category: short name of the kind of failure.
        cause: what happened, in one line.
        fix: what to do about it, in one line.
    """

    category: str
    cause: str
    fix: str


def state_of(record: Path) -> State:
    """Return what is left of the launch that is to write `record`; a record counts for more than a failure."""
    if record.is_file():
        return "measured"
    return "failed" if failure_path(record).is_file() else "missing"


def failure_of(
    experiment: str, launch: int, phase: str, cause: Cause, log: str, node: str | None, job: str | None
) -> Failure:
    """Return what a launch leaves that has failed now.

    Args:
        experiment: folder name of its experiment.
        launch: its index.
        phase: how far it came.
        cause: why it came no further.
        log: path of the log that tells more.
        node: name of the machine; None where it reached none.
        job: id of the scheduler's job; None outside of a scheduler.
    """
    return Failure(
        schema_version=SCHEMA_VERSION,
        experiment=experiment,
        launch=launch,
        failed_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        phase=phase,
        category=cause.category,
        cause=cause.cause,
        fix=cause.fix,
        log=log,
        node=node,
        job=job,
    )


def is_nodes_fault(failure: Failure) -> bool:
    """Return whether the launch may succeed as it is on another node; else what it measures has to change."""
    return failure.category in NODE_FAULTS


def failed_by_itself(record: Path, plan: Path) -> bool:
    """Return whether a launch left a failure and no record, would fail on any node, and did so in this run.

    That is since the plan file `plan` was written; where there is none, whenever. A failure that can't be read is none.
    """
    path = failure_path(record)
    try:
        began_ns = plan.stat().st_mtime_ns if plan.exists() else 0
        if state_of(record) != "failed" or path.stat().st_mtime_ns < began_ns:
            return False
        return not is_nodes_fault(read_failure(path))
    except (OSError, UserError):
        return False


def error_of(failure: Failure, name: str | None = None) -> UserError:
    """Return the two lines that say how far the launch `name` came, why it failed and what to do."""
    name = name or f"{failure.experiment} launch {failure.launch}"
    status = NODE_STATUS if is_nodes_fault(failure) else 1
    return UserError(f"{name}: {failure.phase}: {failure.cause}", f"{failure.fix} (log: {failure.log})", status)
