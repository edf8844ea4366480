"""The machine that this process runs on, and the scheduler's job that it is part of."""

from __future__ import annotations

import os
import socket


def node_name() -> str:
    """Name of the machine: as Slurm has it, or as ROLLOUT_BENCH_NODE says where the host name is a container's."""
    return os.environ.get("ROLLOUT_BENCH_NODE") or os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def scheduler_job() -> str | None:
    """Id of the scheduler's job that this process is part of; None outside of a scheduler.

    It is Slurm's, or what ROLLOUT_BENCH_JOB says (the manifests' Jobs, which start a pod after another), or the pod's.
    """
    in_pod = os.environ.get("KUBERNETES_SERVICE_HOST") is not None
    known = os.environ.get("SLURM_JOB_ID") or os.environ.get("ROLLOUT_BENCH_JOB")
    return known or (os.environ.get("HOSTNAME") if in_pod else None)
