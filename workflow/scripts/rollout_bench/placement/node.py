"""The machine that this process runs on, and the scheduler's job that it is part of."""

from __future__ import annotations

import os
import socket


def node_name() -> str:
    """Name of the machine: as Slurm has it, or as ROLLOUT_BENCH_NODE says where the host name is a container's."""
    return os.environ.get("ROLLOUT_BENCH_NODE") or os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def scheduler_job() -> str | None:
    """Id of the scheduler's job that this process is part of: Slurm's, or the name of the pod; None outside of both."""
    in_pod = os.environ.get("KUBERNETES_SERVICE_HOST") is not None
    return os.environ.get("SLURM_JOB_ID") or (os.environ.get("HOSTNAME") if in_pod else None)


def same_job(one: str | None, other: str | None) -> bool:
    """Whether two ids are of one job: the same id, or pods of one Kubernetes Job, of which one follows another."""
    if one is None or other is None:
        return False
    return one == other or ("-" in one and one.rpartition("-")[0] == other.rpartition("-")[0])
