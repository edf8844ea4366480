"""Slurm: the state of jobs, and the devices of this one. Without a cluster, no command of Slurm is called."""

import os
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rollout_bench.contracts.failures import Cause
from rollout_bench.core.errors import UserError
from rollout_bench.core.numbers import first_few
from rollout_bench.core.processes import printed_by

LIVING = frozenset(
    {
        "PENDING",
        "CONFIGURING",
        "RUNNING",
        "COMPLETING",
        "SUSPENDED",
        "STOPPED",
        "REQUEUED",
        "REQUEUE_HOLD",
        "REQUEUE_FED",
        "RESIZING",
        "SIGNALING",
        "SPECIAL_EXIT",
        "STAGE_OUT",
    }
)
"""States of jobs that run, wait, or will run again."""

CANCELLED = Cause("cancelled", "somebody cancelled the job", "run the same command again")

CAUSES = {
    r"^(TIMEOUT|DEADLINE)|DUE TO TIME LIMIT": Cause(
        "time_limit",
        "the job ran into its time limit",
        "raise timeout_s: the limit is that and 5 minutes for each launch of a job",
    ),
    r"^PREEMPTED|DUE TO PREEMPTION": Cause(
        "preempted",
        "a job of higher priority took the node",
        "run the same command again, or choose another slurm_partition in default-resources of the profile",
    ),
    r"^(NODE|BOOT)_FAIL|DUE TO NODE FAILURE": Cause(
        "node_failure", "the node failed", "run the same command again; if it stays down, tell who runs the cluster"
    ),
    r"^OUT_OF_MEMORY|oom[_-]kill|[Ee]xceeded (?:job |step )?memory limit|Out Of Memory": Cause(
        "out_of_memory",
        "the job used more memory of the host than it asked for",
        "raise mem_mb in default-resources of the profile",
    ),
    r"^CANCELLED|CANCELLED AT": CANCELLED,
}
"""Pattern of a job's state, or of slurmd's message in its log -> the cause why its launch has no record.

The first match counts, because slurmd also writes CANCELLED AT where another cause follows.
"""

_TAIL = 20_000


@dataclass(frozen=True)
class SlurmJob:
    """Slurm's description of a job: its state, and the path of its log, if known."""

    state: str
    log: str


def ask(job: str) -> SlurmJob | None:
    """Return Slurm's description of a job; None if the job is unknown or there is no Slurm.

    The controller forgets jobs that ended more than MinJobAge seconds ago (300 by default). Slurm's accounting, if
    there is one, is asked after that.
    """
    words = dict(word.partition("=")[::2] for word in printed_by("scontrol", "show", "job", job).split())
    if words.get("JobId") == job:
        return SlurmJob(words.get("JobState", "UNKNOWN"), words.get("StdOut", ""))
    state = printed_by("sacct", "-X", "-n", "-P", "-j", job, "-o", "State").split()
    return SlurmJob(state[0], "") if state else None


def answers() -> bool:
    """Return whether a Slurm controller answers."""
    return " UP" in printed_by("scontrol", "ping").replace("\n", " ")


def cause_of_own_job(limit_s: float = 5.0) -> Cause | None:
    """Return why Slurm is ending this process's job; None if Slurm is not ending it, or outside Slurm.

    A preempted job is put back into the queue, because the executor plugin waits for its new start.
    """
    job = os.environ.get("SLURM_JOB_ID")
    deadline = time.monotonic() + limit_s
    while job is not None and (known := ask(job)) is not None:
        cause = cause_of(known, [Path(known.log)])
        if cause is not None and cause.category == "preempted":
            printed_by("scontrol", "requeue", job)
        if cause is not None or time.monotonic() > deadline:
            return cause or (CANCELLED if known.state == "COMPLETING" else None)
        time.sleep(0.3)  # the signal can be faster than state and log
    return None


def cause_of(known: SlurmJob | None, logs: Iterable[Path]) -> Cause | None:
    """Return why the launch of a job ended, from the job's state, else from slurmd's message in one of its `logs`.

    The result is None if neither names a cause. States such as COMPLETED and FAILED name none.
    """
    ends_of_logs = [log.read_text(errors="replace")[-_TAIL:] for log in logs if log.is_file()]
    texts = [*([] if known is None else [known.state]), *ends_of_logs]
    return next((cause for text in texts for pattern, cause in CAUSES.items() if re.search(pattern, text)), None)


JOB_LOGS = Path("logs/slurm")
"""Folder of the logs of Slurm jobs."""


def check_none_left(folder: Path) -> None:
    """Check that no job of an earlier Snakemake in `folder`, which was killed, runs, waits or ends.

    Raises:
        UserError: there is such a job.
    """
    if not JOB_LOGS.is_dir():
        return  # nothing was ever submitted from here
    wanted = ["--states=PENDING,CONFIGURING,RUNNING,SUSPENDED,STOPPED,COMPLETING,REQUEUED", "--sort=i"]
    lines = printed_by("squeue", "--me", "--noheader", *wanted, "--Format=JobID: |,WorkDir: |,Comment:").splitlines()
    jobs = [line.split("|", 2) for line in lines if line.count("|") >= 2]
    here = {str(folder), str(folder.resolve())}
    left = [job.strip() for job, where, comment in jobs if where.strip() in here and comment.startswith("rule_")]
    if left:
        problem = f"an earlier run has left jobs on the cluster: {first_few(left, 5)}"
        raise UserError(problem, f"wait for their end, or end them: scancel {' '.join(left)}; then run again")


def see_granted_npus() -> None:
    """Set ASCEND_RT_VISIBLE_DEVICES to the NPUs that Slurm granted this job, unless the variable is set already.

    Slurm has no plugin for npu, so it sets no variable for this resource.
    """
    job = os.environ.get("SLURM_JOB_ID")
    granted = [] if job is None else npus_in(printed_by("scontrol", "-d", "show", "job", job))
    if granted:
        os.environ.setdefault("ASCEND_RT_VISIBLE_DEVICES", ",".join(map(str, granted)))


def npus_in(text: str) -> list[int]:
    """Return the indices of a job's NPUs in the output of `scontrol -d show job`, such as `GRES=npu:2(IDX:0-1)`.

    The result is empty if the job has several nodes, or if gres.conf has only a count of NPUs: Slurm then grants no
    specific ones.
    """
    devices = re.findall(r"\bGRES=\S*?\bnpu(?::[^(,]*)?\(IDX:([\d,-]+)\)", text)
    spans = [part.partition("-")[::2] for part in devices[0].split(",")] if len(devices) == 1 else []
    return [number for first, last in spans for number in range(int(first), int(last or first) + 1)]
