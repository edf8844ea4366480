"""The lease: the right of one launch to use devices of its node, for as long as its engine lives."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rollout_bench.engines import device_memory
from rollout_bench.engines.scratch import end_left_behind
from rollout_bench.placement import cores
from rollout_bench.placement.choice import turned
from rollout_bench.placement.claims import Claim, Claims, Own, Pause, folder_of_claims
from rollout_bench.placement.device import Device, DeviceError
from rollout_bench.placement.inventory import VARIABLES, inventory, usual_isolation
from rollout_bench.placement.links import Links, links_of, told
from rollout_bench.placement.node import node_name, scheduler_job
from rollout_bench.placement.taking import taken
from rollout_bench.placement.waiting import name_of
from rollout_bench.plan.devices import devices_needed, devices_per_replica, replicas
from rollout_bench.plan.spec import Isolation, Spec
from rollout_bench.records.placement import Placement


@dataclass(frozen=True)
class Wanted:
    """What a launch wants of its node.

    Args:
        spec: what it measures.
        record: where its record will lie, `<results>/<mode>/<experiment>/launch-<i>.json`.
        isolation: what may run beside it; None for what is usual on its platform.
        devices: how many devices launches of its workflow hold at most; on cpu so many blocks of cores. None: all;
            on cpu as many as it needs.
        first: number of the device to begin with, among those that are free: launches that are compared begin with
            the same one.
    """

    spec: Spec
    record: Path
    isolation: Isolation | None = None
    devices: int | None = None
    first: int = 0


@dataclass(frozen=True)
class Lease:
    """Devices that are held, one group for each replica; `managed` is False where nobody knows which there are."""

    wanted: Wanted
    isolation: Isolation
    groups: list[list[Device]]
    links: Links
    waited_s: float
    managed: bool
    everything: bool
    """Whether one replica holds all devices in their order, so that it need not be told which."""
    _own: Own
    _claim: Claim
    _claims: Claims

    @property
    def keep_open(self) -> list[int]:
        """Descriptors that keep the lease: it lasts until everybody who inherited them has closed them."""
        return [self._own.descriptor]

    @property
    def devices(self) -> list[Device]:
        """All devices, replica after replica."""
        return [device for group in self.groups for device in group]

    @property
    def cores(self) -> list[set[int] | None]:
        """The cores that each replica is to run on; None for all that this process may run on."""
        if self.everything or self.wanted.spec.platform != "cpu":
            return [None for _ in self.groups]
        return [{core for device in group for core in device.cores} for group in self.groups]

    def environments(self, base: Mapping[str, str]) -> list[dict[str, str]]:
        """`base` for each replica, with the variable that names its devices."""
        return [{**base, **self._variables(group)} for group in self.groups] or [dict(base)]

    def neighbours(self) -> list[str]:
        """Names of the launches that hold other devices of the node right now."""
        others = [
            found.claim
            for found in self._claims.found()
            if found.path != self._own.path and found.alive and found.claim
        ]
        return sorted(name_of(claim, self._claim) for claim in others if claim.holds is not None)

    @property
    def file(self) -> Path:
        """The file that says what is held."""
        return self._own.path

    def is_lost(self) -> bool:
        """Return whether somebody removed that file, so that others may take the devices."""
        return self._own.is_lost()

    def placement(self, neighbours: Sequence[str]) -> Placement:
        """What the record says of it; `neighbours` are those that were there when it mattered."""
        return Placement(
            node=node_name(),
            devices=[device.name for device in self.devices],
            visible=[device.visible for device in self.devices],
            isolation=self.isolation,
            waited_s=round(self.waited_s, 3),
            neighbours=list(neighbours),
            links=told(self.links, [[device.number for device in group] for group in self.groups]),
            job=scheduler_job(),
        )

    def _variables(self, devices: Sequence[Device]) -> dict[str, str]:
        if self.everything or not self.managed or not devices:
            return {}
        if self.wanted.spec.platform == "cpu":
            return {cores.MEMORY_NODES: cores.memory_nodes(core for device in devices for core in device.cores)}
        told_so = {VARIABLES[self.wanted.spec.platform]: ",".join(device.visible for device in devices)}
        # or CUDA would count the fastest device first, where devices differ
        return told_so | ({"CUDA_DEVICE_ORDER": "PCI_BUS_ID"} if self.wanted.spec.platform == "cuda" else {})


@contextmanager
def lease(wanted: Wanted, pause: Pause, say: Callable[[str], None]) -> Iterator[Lease]:
    """Waits until the devices that `wanted` needs are free, and holds them for as long as the context lasts.

    On cpu this process, too, runs on the cores of the lease meanwhile.

    Args:
        wanted: what is wanted.
        pause: waits so many seconds; raises what is to end the waiting.
        say: is told once who holds the devices, where one has to wait.

    Raises:
        DeviceError: there never will be as many devices as are needed.
        UserError: the folder of claims can't be used.
    """
    spec = wanted.spec
    isolation = wanted.isolation or usual_isolation(spec.platform)
    needed, size = devices_needed(spec), devices_per_replica(spec)
    there = inventory(spec.platform, wanted.devices or needed)
    devices = turned(there or [], wanted.first)
    if there is not None:
        _check(wanted, needed, len(there))
    else:  # nobody can say which devices another launch holds, nor give replicas different ones
        isolation = "exclusive"
        if replicas(spec) > 1:
            raise DeviceError(
                "too_few_devices",
                f"no tool here lists the devices that {replicas(spec)} replicas are to share out",
                "put nvidia-smi or npu-smi on PATH, or lower data_parallel_size to 1",
            )
    links = links_of(spec.platform) if len(devices) > 1 else Links()
    shape = replicas(spec), size if devices else 0, links
    claims = Claims(folder_of_claims())
    claim = Claim(
        name="/".join([*wanted.record.parts[-3:-1], wanted.record.stem]),
        results=str(wanted.record.absolute().parent.parent.parent),
        pid=os.getpid(),
        since=time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime()),
        isolation=isolation,
        wants=[part for device in devices for part in device.parts],
    )
    began = time.monotonic()
    affinity = os.sched_getaffinity(0)
    with taken(claims, claim, devices, shape, pause, say) as got:
        if end_left_behind() or got.left_over:
            device_memory.wait_until_free(spec.platform, [device for group in got.groups for device in group], pause)
        held = Lease(
            wanted=wanted,
            isolation=isolation,
            groups=got.groups,
            links=links,
            waited_s=time.monotonic() - began,
            managed=there is not None,
            everything=_is_everything(got.groups, there or []),
            _own=got.own,
            _claim=claim,
            _claims=claims,
        )
        if pinned := [block for block in held.cores if block]:
            os.sched_setaffinity(0, set().union(*pinned))
        try:
            yield held
        finally:
            os.sched_setaffinity(0, affinity)


def _check(wanted: Wanted, needed: int, there: int) -> None:
    spec = wanted.spec
    most = there if wanted.devices is None else min(there, wanted.devices)
    if needed <= most:
        return
    asks = " x ".join(
        f"{name} {value}"
        for name in ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")
        if (value := int(spec.engine.args.get(name) or 1)) > 1
    )
    variable = VARIABLES.get(spec.platform, "")
    found = f"{there} {'is' if there == 1 else 'are'} visible here"
    if variable in os.environ:
        found += f" ({variable}={os.environ[variable]})"
    limit = f", of which devices allows {wanted.devices}" if most < there else ""
    remedy = (
        "raise devices, or lower what it asks for" if most < there else "make more visible, or lower what it asks for"
    )
    raise DeviceError(
        "too_few_devices",
        f"the launch needs {needed} device{'s' if needed > 1 else ''}{f' ({asks})' if asks else ''}; {found}{limit}",
        remedy if spec.platform != "cpu" else "set devices to what it needs, or lower what it asks for",
    )


def _is_everything(groups: Sequence[Sequence[Device]], there: Sequence[Device]) -> bool:
    if len(groups) != 1 or set(groups[0]) != set(there):
        return False
    held = {core for device in there for core in device.cores}
    return list(groups[0]) == list(there) and (not held or cores.are_all(held))
