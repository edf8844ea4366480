"""Launches that ended without a word, killed or never begun: found out afterwards, and told as failures.

A launch leaves its claim while it is measured, and Slurm a log for each job; those, and what Slurm still knows of the
job, say why there is no record.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable
from pathlib import Path

from rollout_bench.cluster import slurm
from rollout_bench.cluster.claim import FOLDER, Claim, give_up, read_claim
from rollout_bench.engines.failures import Cause
from rollout_bench.errors import UserError
from rollout_bench.placement.node import scheduler_job
from rollout_bench.records.record import SCHEMA_VERSION, Failure
from rollout_bench.records.store import failure_path, write_failure

JOB_LOGS = Path("logs/slurm")
"""Where the profile has Slurm put the logs of jobs: rule_<mode>/<experiment>_<launch>/<job>.log."""

CANCEL_S = 180.0
"""How long jobs may take to end that are cancelled: Slurm's KillWait, and the engine's end."""

_KILLED = Cause(
    "killed",
    "the measuring command was killed (SIGKILL), and left no word",
    "run the same command again; where nobody killed it, memory may have run out: look at dmesg",
)


def end_left_behind(folder: Path) -> None:
    """Cancels what an earlier Snakemake in `folder`, which was killed, has left running or waiting on the cluster.

    It would have done so itself, had it been let. Its launches would otherwise be measured twice.

    Raises:
        UserError: they don't end.
    """
    if not JOB_LOGS.is_dir():
        return  # nothing was ever submitted from here
    jobs = slurm.left_running(folder)
    if not jobs:
        return
    names = ", ".join(jobs[:5]) + (f" and {len(jobs) - 5} more" if len(jobs) > 5 else "")
    print(f"Cancelling what an earlier run has left on the cluster: job {names}", flush=True)
    if left := slurm.cancel(jobs, folder, CANCEL_S):
        raise UserError(f"job {left[0]} of an earlier run does not end", "end it with scancel, then run again")


def tell_of_claims(results: Path) -> list[Path]:
    """Turns the claims of dead processes into failures; returns the records that these would have written."""
    told = []
    folder = results / FOLDER
    for path in sorted(folder.glob("*/*/launch-*.json")):
        record = results / path.relative_to(folder)
        try:
            claim = read_claim(path)
        except UserError:
            continue  # given up meanwhile, or damaged: the launch itself will say so
        if claim.lives():
            continue
        if tell_of_dead(record, claim):
            told.append(record)
        give_up(path, claim)
    return told


def tell_of_dead(record: Path, claim: Claim) -> bool:
    """Turns the claim of a dead process into a failure, if it left neither record nor failure; whether it did."""
    again_here = claim.job is not None and claim.job == scheduler_job()  # this process goes on with that launch
    if again_here or record.exists() or failure_path(record).exists():
        return False
    _write(record, _cause_of(claim.job), claim.log, claim.node, claim.job)
    return True


def tell_of_jobs(records: Iterable[Path], since_s: float, launches_per_job: int = 1) -> list[Path]:
    """Writes failures for `records` that neither exist nor failed and whose jobs have a log younger than `since_s`.

    Args:
        since_s: seconds since 1970.
        launches_per_job: how many launches share an allocation.
    """
    told = []
    for record in records:
        job_log = (
            None if record.exists() or failure_path(record).exists() else newest_log(record, since_s, launches_per_job)
        )
        if job_log is not None:
            job = job_log.stem
            known = slurm.ask(job)
            if known is not None and known.state in slurm.LIVING:
                continue
            text = slurm.tail(job_log)
            last = next((line for line in reversed(text.splitlines()) if line.strip()), "it printed nothing")
            cause = (
                (known and slurm.cause_of_state(known.state))
                or slurm.cause_in_log(text)
                or Cause("not_begun", f"the job ended before its launch began: {last.strip()[:200]}", f"read {job_log}")
            )
            _write(record, cause, str(job_log), None if known is None else known.nodes or None, job)
            told.append(record)
    return told


def newest_log(record: Path, since_s: float, launches_per_job: int = 1) -> Path | None:
    """The log of the job that was to write `record`, of those begun after `since_s` the last."""
    mode, experiment, launch = record.parent.parent.name, record.parent.name, record.stem.removeprefix("launch-")
    logs = [
        *(JOB_LOGS / f"rule_{mode}" / f"{experiment}_{launch}").glob("*.log"),
        *JOB_LOGS.glob(f"group_{experiment}_{int(launch) // launches_per_job}_{mode}/*.log"),
    ]
    recent = [log for log in logs if re.fullmatch(r"\d+", log.stem) and log.stat().st_mtime >= since_s]
    return max(recent, key=lambda log: int(log.stem), default=None)


def _cause_of(job: str | None) -> Cause:
    """Why a launch ended that was killed, in a job of Slurm's or not."""
    known = None if job is None else slurm.ask(job)
    cause = None if known is None else slurm.cause_of_state(known.state)
    if cause is None and job is not None:
        cause = next((c for log in JOB_LOGS.rglob(f"{job}.log") if (c := slurm.cause_in_log(slurm.tail(log)))), None)
    return cause or _KILLED


def _write(record: Path, cause: Cause, log: str, node: str | None, job: str | None) -> None:
    failure = Failure(
        schema_version=SCHEMA_VERSION,
        experiment=record.parent.name,
        launch=int(record.stem.removeprefix("launch-")),
        failed_at=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        phase="ended",
        category=cause.category,
        cause=cause.cause,
        fix=cause.fix,
        log=log,
        node=node,
        job=job,
    )
    write_failure(record, failure)
