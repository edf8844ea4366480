"""Threads and resources of the launching rules. They let launches run simultaneously on different devices."""

import itertools
import math
import os
from collections.abc import Callable
from functools import partial
from typing import Any

from rollout_bench.cluster.internals import Internals
from rollout_bench.contracts.spec import Platform, devices_needed
from rollout_bench.measure.machine.device import DeviceError
from rollout_bench.measure.machine.inventory import usual_isolation, visible_devices
from rollout_bench.plan.checks import check_devices_here
from rollout_bench.plan.config import Config
from rollout_bench.plan.matrix import Matrix
from rollout_bench.plan.schedule import Schedule, ScheduledLaunch

RESOURCE = "devices"


class DeviceSlots:
    """Threads and resources of the launching rules.

    If launches may run simultaneously on this machine, each device is a separate Snakemake resource. Compared launches
    (equal index, different quantization only) request the same device and run one after another. So differences
    between devices do not affect the comparison. On a cluster, the scheduler assigns devices.

    Args:
        plan: the launches.
        workflow: Snakemake's `Workflow` object. Its device limit is set here, unless the user set one
            (`--resources devices=4`).
        on_cluster: whether jobs are submitted to a cluster, or this process is such a job.
    """

    def __init__(self, plan: Schedule, workflow: Any, on_cluster: bool) -> None:
        self._plan, self._here = plan, not on_cluster
        cores: int | None = workflow.resource_settings.cores if self._here else None
        self.all_cores = cores or plan.config.cluster.cpus_per_device
        """Threads of a job that must run alone."""
        isolation = plan.config.isolation or usual_isolation(plan.matrix.platform)
        self._count = 1
        if self._here and workflow.is_main_process and isolation == "per_device":
            internals = Internals(workflow)
            self._count = max(1, internals.limited(RESOURCE, partial(_devices, plan)))
            for number in range(self._count):
                internals.limited(_slot(number), lambda: 1)
        self._groups = sorted({_group(launch) for launch in plan.launches})

    def threads(self, wildcards: Any) -> int:
        """Return the threads of a launch: all cores, or its devices' share if launches run simultaneously."""
        devices = self._needed(wildcards)
        if self._count == 1 or not devices:
            return self.all_cores
        return max(1, self.all_cores * min(devices, self._count) // self._count)

    @property
    def resources(self) -> dict[str, Callable[..., int]]:
        """Functions for the resources of a launch: the number of its devices, and each single device."""
        slots = range(self._count) if self._count > 1 else ()
        return {RESOURCE: self._needed, **{_slot(number): partial(self._takes, number) for number in slots}}

    def first(self, launch: ScheduledLaunch) -> int:
        """Return the index of the first device of `launch`.

        Launches that differ only in their quantization have the same first device. The launches of one round are
        spread over the devices.
        """
        devices = max(1, devices_needed(launch.experiment.spec))
        places = max(1, self._count // devices)
        # with a common factor of step and places, a group would never reach some of the places
        step = next(step for step in itertools.count(len(self._groups)) if math.gcd(step, places) == 1)
        return (self._groups.index(_group(launch)) + launch.index * step) % places * devices

    def arguments(self, wildcards: Any) -> list[str]:
        """Return the arguments of the measuring command for a launch."""
        config = self._plan.config
        options = {
            "--isolation": config.isolation,
            "--devices": config.devices if self._here else None,
            "--first-device": self.first(self._plan.job_at(wildcards).launches[0]) if self._here else None,
        }
        return [word for name, value in options.items() if value is not None for word in (name, str(value))]

    def _needed(self, wildcards: Any) -> int:
        return devices_needed(self._plan.job_at(wildcards).launches[0].experiment.spec)

    def _takes(self, number: int, wildcards: Any) -> int:
        first = self.first(self._plan.job_at(wildcards).launches[0])
        return int(first <= number < first + self._needed(wildcards))


def check_devices(config: Config, matrix: Matrix) -> None:
    """Raise `UserError` if a launch needs more devices than this machine has.

    There is no check for a pod, nor if the number of devices is unknown: a login node may have no devices.
    """
    if config.kubernetes.image is not None:
        return
    on_cpu = matrix.platform == "cpu"
    devices = len(os.sched_getaffinity(0)) if on_cpu else _visible(matrix.platform, None)
    if devices:
        check_devices_here((experiment.spec for experiment in matrix.experiments), devices)


def _devices(plan: Schedule) -> int:
    """Return how many devices the launches of `plan` may use here simultaneously; 1 if the number is unknown."""
    devices, most = _visible(plan.matrix.platform, plan.config.devices), plan.config.devices
    return max(1, min(devices, most or devices))


def _visible(platform: Platform, blocks: int | None) -> int:
    try:
        return len(visible_devices(platform, blocks) or ())
    except DeviceError:  # the launches report it
        return 0


def _slot(number: int) -> str:
    return f"device_{number}"


def _group(launch: ScheduledLaunch) -> tuple[str, str, str]:
    spec = launch.experiment.spec
    return spec.model.name, spec.mode, spec.workload.name
