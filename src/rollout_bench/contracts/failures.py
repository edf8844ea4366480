"""What a launch left: its record, or a failure file with its last phase, the cause and the remedy.

The observer of a launch's end converts an exception, a log, an exit status or the state of a job into a `Cause`. This
is `measure/launch/failures.py` for the engine, and `cluster/slurm.py` for the scheduler. The rest is here, so that
every command writes, words and attributes failures in the same way.
This module is imported while the workflow is parsed, so it needs no large library.
"""

import json
import re
import time
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rollout_bench.contracts.failure_kinds import FAILURES
from rollout_bench.contracts.record import SCHEMA_VERSION, Failure, Flag
from rollout_bench.contracts.store import failure_path, read_failure
from rollout_bench.core.errors import UserError

State = Literal["measured", "failed", "missing"]


NODE_STATUS = 75
"""Exit status for a fault of the node: EX_TEMPFAIL of sysexits.h, because a retry elsewhere may succeed."""

NODE_FAULTS = frozenset(category for category, kind in FAILURES.items() if kind.of_node)
"""Categories of failures that the experiment does not cause: the same launch may succeed on another node."""


@dataclass(frozen=True)
class Cause:
    """Cause of a launch's failure.

    Args:
        category: short name of the kind of failure.
        cause: what happened, in one line.
        fix: the remedy, in one line.
    """

    category: str
    cause: str
    fix: str


WRONG_WEIGHTS = ("output_changed", "update_without_effect", "weights_differ", "stale_prefix_cache", "draft_lost")
"""Flags of launches whose weights failed a proof."""

NOT_UPDATABLE = "not_updatable"
"""Failure category of launches whose checkpoint cannot be updated."""

SERVER_GONE = "server_gone"
"""Flag of loads whose server went away: it says nothing of the load, so another launch measures it."""

LASTING = frozenset({*WRONG_WEIGHTS, NOT_UPDATABLE})
"""Findings that another launch would repeat."""


def state_of(record: Path) -> State:
    """Return the state of the launch that writes `record`; a record takes precedence over a failure."""
    if record.is_file():
        return "measured"
    return "failed" if failure_path(record).is_file() else "missing"


@dataclass(frozen=True)
class RecordScan:
    """The facts in a record that decide whether its launch is measured again.

    Args:
        is_transient: whether the record is damaged, or invalid for a reason that another launch need not repeat. Where
            only a load of a sweep is invalid, the others stand, and it would be so again, unless its server went away.
        block: id of its block; None if it was measured alone.
        model_files: fingerprints of the model's files; empty if there are none.
        lost_loads: labels of the loads of a sweep whose server went away.
    """

    is_transient: bool
    block: str | None
    model_files: dict[str, str]
    lost_loads: tuple[str, ...] = ()


def scan_record(record: Path) -> RecordScan | None:
    """Look at a record without validating it, since a plan does this for every record; None if it does not exist.

    An unreadable record is reported later, when it is validated.
    """
    try:
        content = record.read_text(errors="replace") if record.is_file() else None
    except OSError:
        return RecordScan(False, None, {})
    if content is None:
        return None
    invalid = [(found[1], found[2]) for found in _INVALID.finditer(content)]
    is_transient = not content.rstrip().endswith("}") or are_transient({c for c, load in invalid if _counts(c, load)})
    lost = tuple(load for code, load in invalid if code == SERVER_GONE and load)
    block, files = _BLOCK.search(content), _FILES.search(content)
    return RecordScan(is_transient, block and block[1], _mapping_at(content, files.end()) if files else {}, lost)


def deciding_codes(flags: Iterable[Flag]) -> set[str]:
    """Return the codes that decide whether a launch with these flags is measured again: see `are_transient`."""
    return {flag.code for flag in flags if flag.severity == "invalid" and _counts(flag.code, flag.load)}


def _counts(code: str, load: str | None) -> bool:
    """Return whether a flag decides on its whole launch although it may be of one of its loads."""
    return load is None or code == SERVER_GONE


def are_transient(codes: Set[str]) -> bool:
    """Return whether a launch that is invalid for these reasons is measured again: another one need not repeat them."""
    return bool(codes) and codes.isdisjoint(LASTING)


def _mapping_at(content: str, place: int) -> dict[str, str]:
    try:
        value = json.JSONDecoder().raw_decode(content, place)[0]
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


_INVALID = re.compile(
    r'"code":\s*"(\w+)",\s*"severity":\s*"invalid",\s*"sentence":\s*"(?:[^"\\]|\\.)*"(?:,\s*"load":\s*"([^"]*)")?'
)
_BLOCK = re.compile(r'"block":\s*{\s*"id":\s*"(\w+)"')
_FILES = re.compile(r'"model_files":\s*')


def has_failed(record: Path) -> bool:
    """Return whether a launch of the experiment of `record` has a failure."""
    return any(failure_path(record).parent.glob("launch-*"))


def failure_of(
    experiment: str, launch: int, phase: str, cause: Cause, log: str, node: str | None, job: str | None
) -> Failure:
    """Return the failure of a launch that has failed now.

    Args:
        experiment: folder name of its experiment.
        launch: its index.
        phase: its last phase.
        cause: the cause of the failure.
        log: path of the log with details.
        node: name of the machine; None if it reached none.
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
    """Return whether the unchanged launch may succeed on another node; else the experiment must change."""
    return failure.category in NODE_FAULTS


def failed_by_itself(record: Path, plan: Path, *, on_cluster: bool) -> bool:
    """Return whether a launch failed in this run, without a record, and would fail again in this run.

    This run began when the plan file `plan` was written; without it, any failure counts. An unreadable failure does not
    count, and on a cluster a fault of the node does not, since another node may measure the launch.
    """
    path = failure_path(record)
    try:
        began_ns = plan.stat().st_mtime_ns if plan.exists() else 0
        if state_of(record) != "failed" or path.stat().st_mtime_ns < began_ns:
            return False
        return not (is_nodes_fault(read_failure(path)) and on_cluster)
    except (OSError, UserError):
        return False


CRASH_FIX = "read the log; run the same command again, since a crash may be chance"


def kind_of(failure: Failure) -> tuple[str, str, str]:
    """Return the same for failures of one cause, which may differ in amounts, such as that of free memory."""
    cause, fix = (re.sub(r"\d+(?:\.\d+)?", "0", text) for text in (failure.cause, failure.fix))
    return failure.category, cause, fix


def fix_of(alike: Sequence[Failure]) -> str:
    """Return the remedy of failures with one cause: a crash that several launches share is not called chance."""
    if alike[0].fix == CRASH_FIX and len(alike) > 1:
        return f"read the log and mend its cause: {len(alike)} launches crashed alike"
    return alike[0].fix


def error_of(failure: Failure, name: str | None = None) -> UserError:
    """Return the error with the last phase of the launch `name`, the cause and the remedy."""
    name = name or f"{failure.experiment} launch {failure.launch}"
    status = NODE_STATUS if is_nodes_fault(failure) else 1
    return UserError(f"{name}: {failure.phase}: {failure.cause}", f"{failure.fix} (log: {failure.log})", status)
