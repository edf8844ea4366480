"""Slurm: what the job of a launch asks for, and what Slurm says of jobs, nodes and devices.

On one machine nothing is asked, and no resource is named.
"""

from __future__ import annotations

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
"""States of jobs that run, or will."""

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
"""State of a job that did not end by itself -> why its launch has no record."""

_SAME = {"DEADLINE": "TIMEOUT", "BOOT_FAIL": "NODE_FAIL"}

_WORDS = (
    (r"DUE TO TIME LIMIT", "TIMEOUT"),
    (r"DUE TO PREEMPTION", "PREEMPTED"),
    (r"DUE TO NODE FAILURE", "NODE_FAIL"),
    (r"oom[_-]kill|[Ee]xceeded (?:job|step) memory limit|exceeded memory limit|Out Of Memory", "OUT_OF_MEMORY"),
    (r"CANCELLED AT", "CANCELLED"),
)
"""What slurmd writes into the log of a job that it ends, and what that means."""


_TAIL_BYTES = 20_000


@dataclass(frozen=True)
class SlurmJob:
    """What Slurm says of a job: its state in a word, its nodes as it writes them, and its log where it says."""

    state: str
    nodes: str
    log: str


def own_job(variables: Mapping[str, str] = os.environ) -> str | None:
    """Id of the job that this process runs in; None outside of Slurm."""
    return variables.get("SLURM_JOB_ID")


def ask(job: str) -> SlurmJob | None:
    """Return what Slurm says of a job; None where it has forgotten it, or there is no Slurm.

    The controller forgets jobs that ended more than MinJobAge seconds ago (300 by default); then its accounting,
    where there is one, is asked.
    """
    words = dict(word.partition("=")[::2] for word in printed_by("scontrol", "show", "job", job).split())
    if words.get("JobId") == job:
        return SlurmJob(words.get("JobState", "UNKNOWN"), words.get("NodeList", ""), words.get("StdOut", ""))
    line = printed_by("sacct", "-X", "-n", "-P", "-j", job, "-o", "State,NodeList").strip()
    state, nodes = [*line.split("|"), "", ""][:2]
    return SlurmJob(state.split()[0], nodes, "") if state else None


def answers() -> bool:
    """Return whether there is a Slurm whose controller can be asked."""
    return " UP" in printed_by("scontrol", "ping").replace("\n", " ")


def word_on_own_job(limit_s: float = 5.0) -> Cause | None:
    """Return why Slurm is ending the job that this process runs in; None where it is not, or outside of Slurm.

    A job that was preempted and would stay so is put back into the queue: the executor plugin waits for that.
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
    """Return the end of a job's log; empty where it can't be read."""
    try:
        return log.read_bytes()[-_TAIL_BYTES:].decode(errors="replace")
    except OSError:
        return ""


def cause_of(known: SlurmJob | None, logs: Iterable[Path]) -> Cause | None:
    """Return why the launch of a job ended, by the job's state or else by what slurmd wrote into one of its `logs`.

    None where neither says: states such as COMPLETED and FAILED tell nothing of it.
    """
    cause = None if known is None else CAUSES.get(_SAME.get(known.state, known.state))
    return cause or next((found for log in logs if (found := cause_in_log(tail(log))) is not None), None)


def cause_in_log(text: str) -> Cause | None:
    """Return why a launch ended, by what slurmd wrote into the job's log; None where it wrote nothing."""
    for pattern, state in _WORDS:
        if re.search(pattern, text):
            return CAUSES[state]
    return None


def left_running(folder: Path) -> list[str]:
    """Return ids of the jobs that a Snakemake in `folder` submitted and that run or wait, or just end."""
    wanted = ["--states=PENDING,CONFIGURING,RUNNING,SUSPENDED,STOPPED,COMPLETING,REQUEUED"]
    lines = printed_by("squeue", "--me", "--noheader", *wanted, "--Format=JobID: |,WorkDir: |,Comment:").splitlines()
    jobs = [line.split("|", 2) for line in lines if line.count("|") >= 2]
    here = {str(folder), str(folder.resolve())}
    return [job.strip() for job, where, comment in jobs if where.strip() in here and comment.startswith("rule_")]


def cancel(jobs: Sequence[str], folder: Path, limit_s: float) -> list[str]:
    """Cancel jobs that `left_running` named, and wait for their end; return those that still run after `limit_s`."""
    printed_by("scancel", *jobs)
    deadline = time.monotonic() + limit_s
    while (left := sorted(set(jobs) & set(left_running(folder)))) and time.monotonic() < deadline:
        time.sleep(1.0)
    return left


def granted_npus(variables: Mapping[str, str] = os.environ) -> list[int] | None:
    """Return numbers of the NPUs that Slurm granted this job on this node, in order; None where it does not say.

    Slurm sets no variable for a resource that it has no plugin for, such as npu. Where gres.conf names their device
    files it grants particular ones, and `scontrol -d show job` tells which: `GRES=npu:2(IDX:0-1)`. Where gres.conf has
    their count alone it grants a number, and nobody knows which: then this is None too.
    """
    job, node = own_job(variables), variables.get("SLURMD_NODENAME")
    if job is None or node is None:
        return None
    return npus_in(printed_by("scontrol", "-d", "show", "job", job), node)


def see_granted_npus() -> None:
    """Have this process, and what it starts, see the NPUs that Slurm granted, unless a variable says already which."""
    granted = granted_npus(os.environ)
    if granted is not None:
        os.environ.setdefault("ASCEND_RT_VISIBLE_DEVICES", ",".join(map(str, granted)))


def npus_in(text: str, node: str) -> list[int] | None:
    """Return the numbers of NPUs on `node` in what `scontrol -d show job` prints; None where it names none."""
    for line in text.splitlines():
        nodes = re.search(r"\bNodes=(\S+)", line)
        indices = re.search(r"\bGRES=\S*?\bnpu(?::[^(,]*)?\(IDX:([\d,-]+)\)", line)
        if nodes and indices and node in expanded(nodes[1]):
            return [number for part in indices[1].split(",") for number in _span(part)]
    return None


def expanded(nodes: str) -> list[str]:
    """Return names of the nodes in a list as Slurm writes it: node[01-03,7],other."""
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
"""A value, or what gives one for the wildcards of a job (None: nothing is asked) and the number of the try, from 1."""

SPARE_MIN = 5
"""Minutes of a job beside its launch: starting Snakemake and Python on the node, ending the engine."""

BUILDING_MIN = 60
"""Minutes for building a synthetic checkpoint."""

DEVICE_RESOURCES = {"cuda": "gpu", "ascend": "npu"}
"""What Slurm usually calls a device of each platform."""


def asked_for_launch(plan: Schedule, on_cluster: bool) -> dict[str, Asked]:
    """Resource -> what a launch asks of it; nothing on one machine."""
    if not on_cluster:
        return {}
    cluster = plan.config.cluster

    def cpus(wildcards: Any) -> int:
        return cluster.cpus_per_device * max(1, devices_needed(_launch(plan, wildcards).experiment.spec))

    def devices(wildcards: Any) -> str | None:
        return gres(plan, _launch(plan, wildcards))

    def extra(wildcards: Any) -> str:
        launch = _launch(plan, wildcards)
        in_order = f"--nice={plan.by_record[launch.record][0]}"  # submitted in no order
        return " ".join([in_order, *(["--exclusive"] if _alone(plan, launch) else [])])

    return {"runtime": runtime_min(plan), "cpus_per_task": cpus, "gres": devices, "slurm_extra": extra}


def asked_for_block(plan: Schedule, on_cluster: bool) -> dict[str, Asked]:
    """Resource -> what a block asks of it; nothing on one machine.

    Its launches take turns on the devices and cores of one, and need the time of all. The launch that wildcards name is
    the baseline's.
    """
    if not on_cluster:
        return {}

    def runtime(wildcards: Any) -> int:
        return runtime_min(plan, len(_block(plan, wildcards).launches))

    return {**asked_for_launch(plan, on_cluster), "runtime": runtime}


def asked_for_building(plan: Schedule, on_cluster: bool) -> dict[str, Asked]:
    """Resource -> what building a checkpoint asks of it: no device, which has better things to do."""
    if not on_cluster:
        return {}
    return {"runtime": BUILDING_MIN, "cpus_per_task": plan.config.cluster.cpus_per_device}


def runtime_min(plan: Schedule, launches: int = 1) -> int:
    """Time limit of a job in minutes: what its launches may take, and some more.

    Args:
        plan: what the config is of.
        launches: that the job measures in turn.
    """
    return math.ceil(launches * plan.timeout_s / 60) + SPARE_MIN


def gres(plan: Schedule, launch: ScheduledLaunch) -> str | None:
    """Return devices as Slurm's --gres has them, `gpu:h200:2`; None where the launch takes none."""
    spec = launch.experiment.spec
    name = plan.config.cluster.device_resource or DEVICE_RESOURCES.get(spec.platform)
    return f"{name}:{devices_needed(spec)}" if name and devices_needed(spec) else None


def _alone(plan: Schedule, launch: ScheduledLaunch) -> bool:
    """Return whether the launch must have its node for itself: on cpu launches side by side would slow each other."""
    return (plan.config.isolation or usual_isolation(launch.experiment.spec.platform)) == "exclusive"


def _block(plan: Schedule, wildcards: Any) -> ScheduledBlock:
    return plan.block_of(mark_of(wildcards.mode, wildcards.experiment, wildcards.launch))


def _launch(plan: Schedule, wildcards: Any) -> ScheduledLaunch:
    return plan.launch_of(str(record_path(RESULTS, wildcards.mode, wildcards.experiment, int(wildcards.launch))))
