"""What jobs request of a cluster; nothing without one."""

import math
from collections.abc import Callable
from typing import Any

from rollout_bench.contracts.spec import devices_needed
from rollout_bench.measure.machine.inventory import usual_isolation
from rollout_bench.plan.schedule import Schedule

Asked = int | str | Callable[..., int | str | None]
"""A requested value, or a function of a job's wildcards that returns it (None: no request)."""

SPARE_MIN = 5
"""Minutes of a job besides its launch: start of Snakemake and Python on the node, end of the engine."""

BUILDING_MIN = 60
"""Minutes for building a synthetic checkpoint."""

DEVICE_RESOURCES = {"cuda": "gpu", "ascend": "npu"}
"""Slurm's usual name of a device, for each platform."""


def asked_for_measuring(plan: Schedule, on_cluster: bool) -> dict[str, Asked]:
    """Return the resources that a job requests: name -> function of its wildcards; empty without a cluster.

    The job measures one launch, or the launches of the block whose baseline the wildcards name. These share devices and
    cores, and need the time of all.
    """
    if not on_cluster:
        return {}
    cluster, platform = plan.config.cluster, plan.matrix.platform
    device = cluster.device_resource or DEVICE_RESOURCES.get(platform)
    alone = (plan.config.isolation or usual_isolation(platform)) == "exclusive"

    def devices(wildcards: Any) -> int:
        return devices_needed(plan.job_at(wildcards).launches[0].experiment.spec)

    def gres(wildcards: Any) -> str | None:
        return f"{device}:{devices(wildcards)}" if device and devices(wildcards) else None

    def place(wildcards: Any) -> int:  # Snakemake submits jobs in no order
        return plan.by_record[plan.job_at(wildcards).launches[0].record][0]

    return {
        "runtime": lambda wildcards: math.ceil(len(plan.job_at(wildcards).launches) * plan.timeout_s / 60) + SPARE_MIN,
        "cpus_per_task": lambda wildcards: cluster.cpus_per_device * max(1, devices(wildcards)),
        "gres": gres,
        "slurm_extra": lambda wildcards: f"--nice={place(wildcards)}{' --exclusive' * alone}",
    }


def asked_for_building(plan: Schedule, on_cluster: bool) -> dict[str, Asked]:
    """Return the resources that building a checkpoint requests, without a device; empty without a cluster."""
    if not on_cluster:
        return {}
    return {"runtime": BUILDING_MIN, "cpus_per_task": plan.config.cluster.cpus_per_device}
