"""What the job of a launch asks a cluster for, as resources of Snakemake that the executor plugins know.

On one machine nothing is asked, and no resource is named.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from rollout_bench.cluster.slurm import other_nodes
from rollout_bench.engines.failures import at_fault
from rollout_bench.errors import UserError
from rollout_bench.placement.inventory import usual_isolation
from rollout_bench.plan.devices import devices_needed
from rollout_bench.plan.schedule import RESULTS, Launch, Schedule
from rollout_bench.records.store import failure_path, read_failure, record_path

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

    def extra(wildcards: Any, attempt: int) -> str:
        launch = _launch(plan, wildcards)
        together = _together(plan, launch)  # what they ask for has to be the same
        in_order = f"--nice={plan.by_record[together[0]][0]}"  # Snakemake submits what is ready in no order
        alone = ["--exclusive"] if _alone(plan, launch) else []
        return " ".join([in_order, *alone, *excluded(together, attempt, cluster.partition)])

    return {**_usual(plan, runtime_min(plan)), "cpus_per_task": cpus, "gres": devices, "slurm_extra": extra}


def asked_for_building(plan: Schedule, on_cluster: bool) -> dict[str, Asked]:
    """Resource -> what building a checkpoint asks of it: no device, which has better things to do."""
    if not on_cluster:
        return {}
    return {**_usual(plan, BUILDING_MIN), "cpus_per_task": plan.config.cluster.cpus_per_device}


def _usual(plan: Schedule, minutes: int) -> dict[str, Asked]:
    cluster = plan.config.cluster
    asked = {
        "slurm_account": cluster.account,
        "slurm_partition": cluster.partition,
        "mem_mb": cluster.memory_mb,
        "runtime": minutes,
    }
    return {name: value for name, value in asked.items() if value is not None}


def allocation(plan: Schedule, on_cluster: bool, wildcards: Any) -> str | None:
    """Name of the allocation that launches share, of Snakemake's group; None where each has its own."""
    size = plan.config.cluster.launches_per_job
    if not on_cluster or size == 1:
        return None
    return f"{wildcards.experiment}_{int(wildcards.launch) // size}"


def before_in_allocation(plan: Schedule, on_cluster: bool, record: str) -> list[str]:
    """The record of the launch that runs just before this one in the same allocation; nothing for the first.

    Launches that wait for one another are what makes Snakemake run a group one after the other, and add up its time.
    """
    size = plan.config.cluster.launches_per_job
    if not on_cluster or size == 1:
        return []
    together = _together(plan, plan.launch_of(record))
    return [other for other in together[: together.index(record)] if not Path(other).exists()][-1:]


def runtime_min(plan: Schedule) -> int:
    """Time limit for one launch in minutes: what the config says, or else what the launch may take, and some more."""
    return plan.config.cluster.runtime_min or math.ceil(plan.config.timeout_s / 60) + SPARE_MIN


def gres(plan: Schedule, launch: Launch) -> str | None:
    """Devices as Slurm's --gres has them, `gpu:h200:2`; None where the launch takes none."""
    spec = launch.experiment.spec
    name = plan.config.cluster.device_resource or DEVICE_RESOURCES.get(spec.platform)
    return f"{name}:{devices_needed(spec)}" if name and devices_needed(spec) else None


def excluded(records: Iterable[str], attempt: int, partition: str | None) -> list[str]:
    """The option of sbatch that keeps another try off the nodes that failed the first, while there are other nodes."""
    nodes = set()
    for path in [failure_path(Path(record)) for record in records] if attempt > 1 else []:
        with contextlib.suppress(UserError):
            failure = read_failure(path)
            if failure.node is not None and at_fault(failure.category) == "node":
                nodes.add(failure.node)
    return [f"--exclude={','.join(sorted(nodes))}"] if nodes and other_nodes(frozenset(nodes), partition) else []


def _together(plan: Schedule, launch: Launch) -> list[str]:
    """Records of the launches that share an allocation with `launch`, itself among them, in the order they run."""
    size = plan.config.cluster.launches_per_job
    first = launch.index // size * size
    beside = [str(Path(launch.record).with_name(f"launch-{index}.json")) for index in range(first, first + size)]
    return [record for record in beside if record in plan.by_record]


def _alone(plan: Schedule, launch: Launch) -> bool:
    """Whether the launch must have its node for itself: on cpu launches side by side would slow each other."""
    return (plan.config.isolation or usual_isolation(launch.experiment.spec.platform)) == "exclusive"


def _launch(plan: Schedule, wildcards: Any) -> Launch:
    """The launch of a job's wildcards, which name no mode; an experiment's name has its key, so it is in one only."""
    records = [
        str(record_path(RESULTS, mode, wildcards.experiment, int(wildcards.launch))) for mode in plan.config.modes
    ]
    return plan.launch_of(next((record for record in records if record in plan.by_record), records[0]))
