"""Slurm: the resources of a launch's job, and the state of jobs, nodes and devices.

Without a cluster, no command of Slurm is called and no resource is requested.
"""

import math
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rollout_bench.contracts.postmortem import Cause
from rollout_bench.contracts.spec import devices_needed
from rollout_bench.contracts.store import record_path
from rollout_bench.core.processes import printed_by
from rollout_bench.measure.machine.inventory import usual_isolation
from rollout_bench.plan.schedule import RESULTS, Schedule, ScheduledBlock, ScheduledLaunch, mark_of

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

CAUSES = {
    "TIMEOUT": Cause(
        "time_limit",
        "the job ran into its time limit",
        "raise timeout_s: the limit is that and 5 minutes for each launch of a job",
    ),
    "OUT_OF_MEMORY": Cause(
        "out_of_memory",
        "the job used more memory of the host than it asked for",
        "raise mem_mb in default-resources of the profile",
    ),
    "NODE_FAIL": Cause(
        "node_failure", "the node failed", "run the same command again; if it stays down, tell who runs the cluster"
    ),
    "PREEMPTED": Cause(
        "preempted",
        "a job of higher priority took the node",
        "run the same command again, or choose another slurm_partition in default-resources of the profile",
    ),
    "CANCELLED": Cause("cancelled", "somebody cancelled the job", "run the same command again"),
}
"""State of a job that was ended from outside -> the cause why its launch has no record."""

_SAME = {"DEADLINE": "TIMEOUT", "BOOT_FAIL": "NODE_FAIL"}

_WORDS = (
    (r"DUE TO TIME LIMIT", "TIMEOUT"),
    (r"DUE TO PREEMPTION", "PREEMPTED"),
    (r"DUE TO NODE FAILURE", "NODE_FAIL"),
    (r"oom[_-]kill|[Ee]xceeded (?:job|step) memory limit|exceeded memory limit|Out Of Memory", "OUT_OF_MEMORY"),
    (r"CANCELLED AT", "CANCELLED"),
)
"""Pattern of slurmd's message in the log of a job that it ended -> state of the job."""


_TAIL_BYTES = 20_000


@dataclass(frozen=True)
class SlurmJob:
    """Slurm's description of a job: its state, its node list in Slurm's notation, and the path of its log, if known."""

    state: str
    nodes: str
    log: str


def own_job(variables: Mapping[str, str] = os.environ) -> str | None:
    """Return the id of this process's Slurm job, or None outside Slurm."""
    return variables.get("SLURM_JOB_ID")


def ask(job: str) -> SlurmJob | None:
    """Return Slurm's description of a job; None if the job is unknown or there is no Slurm.

    The controller forgets jobs that ended more than MinJobAge seconds ago (300 by default). Slurm's accounting, if
    there is one, is asked after that.
    """
    words = dict(word.partition("=")[::2] for word in printed_by("scontrol", "show", "job", job).split())
    if words.get("JobId") == job:
        return SlurmJob(words.get("JobState", "UNKNOWN"), words.get("NodeList", ""), words.get("StdOut", ""))
    line = printed_by("sacct", "-X", "-n", "-P", "-j", job, "-o", "State,NodeList").strip()
    state, nodes = [*line.split("|"), "", ""][:2]
    return SlurmJob(state.split()[0], nodes, "") if state else None


def answers() -> bool:
    """Return whether a Slurm controller answers."""
    return " UP" in printed_by("scontrol", "ping").replace("\n", " ")


def word_on_own_job(limit_s: float = 5.0) -> Cause | None:
    """Return why Slurm is ending this process's job; None if Slurm is not ending it, or outside Slurm.

    A preempted job is put back into the queue, because the executor plugin waits for its new start.
    """
    job = own_job()
    deadline = time.monotonic() + limit_s
    while job is not None:
        known = ask(job)
        cause = None if known is None else cause_of(known, [Path(known.log)])
        if cause is CAUSES["PREEMPTED"]:
            printed_by("scontrol", "requeue", job)
        if cause is not None or known is None:
            return cause
        if time.monotonic() > deadline:
            return CAUSES["CANCELLED"] if known.state == "COMPLETING" else None
        time.sleep(0.3)  # the signal can be faster than state and log
    return None


def tail(log: Path) -> str:
    """Return the end of a job's log; empty if the log can't be read."""
    try:
        return log.read_bytes()[-_TAIL_BYTES:].decode(errors="replace")
    except OSError:
        return ""


def cause_of(known: SlurmJob | None, logs: Iterable[Path]) -> Cause | None:
    """Return why the launch of a job ended, from the job's state, else from slurmd's message in one of its `logs`.

    The result is None if neither names a cause. States such as COMPLETED and FAILED name none.
    """
    cause = None if known is None else CAUSES.get(_SAME.get(known.state, known.state))
    return cause or next((found for log in logs if (found := cause_in_log(tail(log))) is not None), None)


def cause_in_log(text: str) -> Cause | None:
    """Return why a launch ended, from slurmd's message in the job's log; None if there is no such message."""
    for pattern, state in _WORDS:
        if re.search(pattern, text):
            return CAUSES[state]
    return None


def left_running(folder: Path) -> list[str]:
    """Return the ids of running, waiting and ending jobs that a Snakemake in `folder` submitted."""
    wanted = ["--states=PENDING,CONFIGURING,RUNNING,SUSPENDED,STOPPED,COMPLETING,REQUEUED"]
    lines = printed_by("squeue", "--me", "--noheader", *wanted, "--Format=JobID: |,WorkDir: |,Comment:").splitlines()
    jobs = [line.split("|", 2) for line in lines if line.count("|") >= 2]
    here = {str(folder), str(folder.resolve())}
    return [job.strip() for job, where, comment in jobs if where.strip() in here and comment.startswith("rule_")]


def cancel(jobs: Sequence[str], folder: Path, limit_s: float) -> list[str]:
    """Cancel `jobs` and wait for their end; return the jobs that still run after `limit_s` seconds."""
    printed_by("scancel", *jobs)
    deadline = time.monotonic() + limit_s
    while (left := sorted(set(jobs) & set(left_running(folder)))) and time.monotonic() < deadline:
        time.sleep(1.0)
    return left


def granted_npus(variables: Mapping[str, str] = os.environ) -> list[int] | None:
    """Return the indices of the NPUs that Slurm granted this job on this node, in order; None if unknown.

    Slurm has no plugin for npu, so it sets no variable for this resource. If gres.conf names the device files, Slurm
    grants specific NPUs, and `scontrol -d show job` prints their indices: `GRES=npu:2(IDX:0-1)`. If gres.conf has only
    a count, Slurm grants only a number of NPUs, and the result is None.
    """
    job, node = own_job(variables), variables.get("SLURMD_NODENAME")
    if job is None or node is None:
        return None
    return npus_in(printed_by("scontrol", "-d", "show", "job", job), node)


def see_granted_npus() -> None:
    """Set ASCEND_RT_VISIBLE_DEVICES to the NPUs that Slurm granted, unless the variable is set already."""
    granted = granted_npus(os.environ)
    if granted is not None:
        os.environ.setdefault("ASCEND_RT_VISIBLE_DEVICES", ",".join(map(str, granted)))


def npus_in(text: str, node: str) -> list[int] | None:
    """Return the indices of NPUs on `node` in the output of `scontrol -d show job`; None if there are none."""
    for line in text.splitlines():
        nodes = re.search(r"\bNodes=(\S+)", line)
        indices = re.search(r"\bGRES=\S*?\bnpu(?::[^(,]*)?\(IDX:([\d,-]+)\)", line)
        if nodes and indices and node in expanded(nodes[1]):
            return [number for part in indices[1].split(",") for number in _span(part)]
    return None


def expanded(nodes: str) -> list[str]:
    """Return the names of the nodes in a Slurm list such as node[01-03,7],other."""
    names = []
    for prefix, inside, rest in re.findall(r"([^,\[\]]+)(?:\[([^\]]+)\])?([^,\[\]]*)", nodes):
        if not inside:
            names.append(prefix + rest)
            continue
        for part in inside.split(","):
            width = len(part.split("-")[0])
            names += [f"{prefix}{number:0{width}}{rest}" for number in _span(part)]
    return names


def _span(part: str) -> range:
    first, _, last = part.partition("-")
    return range(int(first), int(last or first) + 1)


Asked = int | str | Callable[..., int | str | None]
"""A requested value, or a function of a job's wildcards that returns it (None: no request)."""

SPARE_MIN = 5
"""Minutes of a job besides its launch: start of Snakemake and Python on the node, end of the engine."""

BUILDING_MIN = 60
"""Minutes for building a synthetic checkpoint."""

DEVICE_RESOURCES = {"cuda": "gpu", "ascend": "npu"}
"""Slurm's usual name of a device, for each platform."""


def asked_for_launch(plan: Schedule, on_cluster: bool) -> dict[str, Asked]:
    """Return the resources that a launch requests: name -> value or function; empty without a cluster."""
    if not on_cluster:
        return {}
    cluster = plan.config.cluster

    def cpus(wildcards: Any) -> int:
        return cluster.cpus_per_device * max(1, devices_needed(_launch(plan, wildcards).experiment.spec))

    def devices(wildcards: Any) -> str | None:
        return gres(plan, _launch(plan, wildcards))

    def extra(wildcards: Any) -> str:
        launch = _launch(plan, wildcards)
        in_order = f"--nice={plan.by_record[launch.record][0]}"  # Snakemake submits jobs in no order
        return " ".join([in_order, *(["--exclusive"] if _alone(plan, launch) else [])])

    return {"runtime": runtime_min(plan), "cpus_per_task": cpus, "gres": devices, "slurm_extra": extra}


def asked_for_block(plan: Schedule, on_cluster: bool) -> dict[str, Asked]:
    """Return the resources that a block requests: name -> value or function; empty without a cluster.

    The launches of a block share the devices and cores of one launch, and need the time of all launches. The
    wildcards name the baseline's launch.
    """
    if not on_cluster:
        return {}

    def runtime(wildcards: Any) -> int:
        return runtime_min(plan, len(_block(plan, wildcards).launches))

    return {**asked_for_launch(plan, on_cluster), "runtime": runtime}


def asked_for_building(plan: Schedule, on_cluster: bool) -> dict[str, Asked]:
    """Return the resources that building a checkpoint requests, without a device; empty without a cluster."""
    if not on_cluster:
        return {}
    return {"runtime": BUILDING_MIN, "cpus_per_task": plan.config.cluster.cpus_per_device}


def runtime_min(plan: Schedule, launches: int = 1) -> int:
    """Return the time limit of a job in minutes: the limits of its launches, plus `SPARE_MIN`.

    Args:
        plan: the planned launches, with the time limit of one launch.
        launches: number of launches of the job.
    """
    return math.ceil(launches * plan.timeout_s / 60) + SPARE_MIN


def gres(plan: Schedule, launch: ScheduledLaunch) -> str | None:
    """Return the devices of a launch in the syntax of Slurm's --gres, `gpu:h200:2`; None if it needs no device."""
    spec = launch.experiment.spec
    name = plan.config.cluster.device_resource or DEVICE_RESOURCES.get(spec.platform)
    return f"{name}:{devices_needed(spec)}" if name and devices_needed(spec) else None


def _alone(plan: Schedule, launch: ScheduledLaunch) -> bool:
    """Return whether the launch needs a node alone: simultaneous launches on CPU would slow each other."""
    return (plan.config.isolation or usual_isolation(launch.experiment.spec.platform)) == "exclusive"


def _block(plan: Schedule, wildcards: Any) -> ScheduledBlock:
    return plan.block_of(mark_of(wildcards.mode, wildcards.experiment, wildcards.launch))


def _launch(plan: Schedule, wildcards: Any) -> ScheduledLaunch:
    return plan.launch_of(str(record_path(RESULTS, wildcards.mode, wildcards.experiment, int(wildcards.launch))))
