"""The parts of the config that say on what launches run, and change nothing about what they measure."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from rollout_bench.plan.fields import Count, Index, Text
from rollout_bench.plan.strict import Strict


class ClusterSettings(Strict):
    """What each launch asks a cluster for. Its devices follow from the engine arguments."""

    account: Text | None = Field(None, description="Account that jobs are charged to. Null: the cluster's default.")
    partition: Text | None = Field(None, description="Partition that jobs run in. Null: the cluster's default.")
    runtime_min: Count | None = Field(
        None, description="Time limit for each launch of a job in minutes. Null: timeout_s and 5 minutes."
    )
    memory_mb: Count | None = Field(None, description="Memory of the host for one launch. Null: the cluster's default.")
    cpus_per_device: Count = Field(8, description="Cores for each device of a launch.")
    device_resource: Text | None = Field(
        None,
        description=(
            "What the cluster calls a device: gpu or npu, or with a type gpu:h200, for Slurm; nvidia.com/gpu or "
            "huawei.com/Ascend910 for Kubernetes. Null: what is usual on the platform; none on cpu."
        ),
    )
    launches_per_job: Count = Field(
        1, description="Launches of one experiment that share an allocation, one after the other, to wait for one."
    )
    retries: Annotated[Index, Field(le=10)] = Field(
        1,
        description=(
            "How often the jobs of kubernetes_manifests try a launch again that was ended from outside, or "
            "whose node was at fault. With an executor plugin its profile's retries count instead."
        ),
    )
