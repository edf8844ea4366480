"""Leases: the right of one launch to use devices of its node, for as long as its engine lives.

Guarantees:
- Two launches never hold the same device, and no launch runs beside an exclusive launch.
- A lease lasts until the engine's processes have ended, however the measuring command ends, and no longer.
- A launch that waits prints once which launch it waits for. Waiting launches are served in the order in which they
  look.

A claim is valid while its launch holds the kernel's lock (flock) on the claim's open file. The guardian inherits the
file, so the lock lasts until both have closed it. filelock cannot be used: its release unlocks the file for all
processes that inherited it, and it hides the descriptor.

Taking or clearing claims needs a lock on the folder itself for some milliseconds. A separate lock file could be
deleted.

All users may write to the folder, so it may contain any file. The program only reads or removes regular files with the
name and the content of a claim, and never follows links.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from rollout_bench.contracts.record import Placement
from rollout_bench.contracts.spec import (
    Isolation,
    Platform,
    Spec,
    devices_needed,
    devices_per_replica,
    replicas,
    replicas_key,
)
from rollout_bench.core.errors import UserError, printable
from rollout_bench.core.numbers import first_few
from rollout_bench.core.processes import node_name, scheduler_job
from rollout_bench.measure.machine import device_memory, inventory
from rollout_bench.measure.machine.device import Device, DeviceError
from rollout_bench.measure.machine.inventory import VARIABLES, usual_isolation, visible_devices
from rollout_bench.measure.machine.scratch import Say, end_left_behind

VARIABLE = "ROLLOUT_BENCH_LEASES"

DEFAULT = Path("/tmp/rollout-bench-leases")
"""Folder that all users of a node share. Containers have their own /tmp: mount this folder, or set another."""

FILE_NAME = re.compile(r"\d{20}-\d+\.json")
"""Name of a claim's file: its creation time in ns of the monotonic clock, and the pid."""

_NO_FILE = {errno.ENOENT, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENXIO}
"""Errors on opening files that are not claims: deleted, unreadable, a link or a socket."""

Shown = Annotated[str, AfterValidator(lambda text: printable(" ".join(text.split())))]
"""Another user's text, reduced to one harmless printable line."""

Pause = Callable[[float], None]
"""Waits for a number of seconds; raises if this process has to end."""

Shape = tuple[int, int]
"""Number of groups, and number of devices in each."""

PAUSE_S = (0.02, 0.5)
"""Shortest and longest time between checks for free devices, in seconds."""


class Claim(BaseModel):
    """The devices that a launch holds. Unknown fields from other versions are ignored."""

    model_config = ConfigDict(frozen=True)

    name: Shown
    """<mode>/<experiment>/launch-<i>"""
    results: str
    """Folder of its results, which identifies the workflow."""
    pid: int
    isolation: Isolation
    holds: list[Shown]
    """Parts of its devices."""

    def excludes(self, other: Claim) -> bool:
        """Return whether the two launches must not run side by side."""
        return "exclusive" in (self.isolation, other.isolation) or not set(self.holds).isdisjoint(other.holds)

    def name_beside(self, own: Claim) -> str:
        """Return the launch's name, marked if its workflow differs from the workflow of `own`."""
        return self.name if self.results == own.results else f"{self.name} (another workflow)"

    def holder(self, own: Claim) -> str:
        """Return a text for the launch of `own`: this launch and the devices that it holds."""
        parts = first_few(self.holds, 4) or "the node"
        exclusively = " exclusively" if self.isolation == "exclusive" else ""
        return f"{self.name_beside(own)} holds {parts}{exclusively} (pid {self.pid})"


UNREADABLE = Claim(name="a launch of another version", results="", pid=0, isolation="exclusive", holds=[])
"""Replaces an unreadable claim whose launch is alive; it is exclusive because its devices are unknown."""


@dataclass(frozen=True)
class ClaimFile:
    """A claim that was found, and whether a process still holds its lock."""

    path: Path
    claim: Claim
    alive: bool


@dataclass(frozen=True)
class Held:
    """The claim of this process, and the devices that it holds.

    Args:
        path: file of the claim.
        descriptor: keeps the claim valid while any process has it open.
        claim: content of the file.
        groups: the devices.
        left_over: whether a killed launch held one of the devices before.
    """

    path: Path
    descriptor: int
    claim: Claim
    groups: list[list[Device]]
    left_over: bool

    def is_lost(self) -> bool:
        """Return whether the file was removed or replaced, so that others may take the devices."""
        try:
            return not os.path.samestat(os.fstat(self.descriptor), self.path.lstat())
        except OSError:
            return True

    def give_back(self) -> None:
        """Remove the claim."""
        self.path.unlink(missing_ok=True)
        os.close(self.descriptor)


class Claims:
    """The claims of a node.

    Args:
        folder: folder of the claims, created if missing.

    Raises:
        UserError: if the folder cannot be created or used, or is a link.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if folder.is_symlink():
            raise UserError(
                f"{folder}: is a link, so its owner could redirect the device leases",
                f"remove the link, or set {VARIABLE} to the folder itself",
            )
        try:
            if not folder.is_dir():
                with contextlib.suppress(FileExistsError):
                    folder.mkdir(parents=True)
                    # Writable for every user and not sticky: a sticky folder would prevent opening and removing
                    # claims that other users' dead launches left.
                    folder.chmod(0o777)
            if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
                raise PermissionError(13, os.strerror(13), str(folder))
        except OSError as error:
            raise UserError(
                f"{folder}: can't be used for device leases: {error.strerror}",
                f"let all users write there (chmod 777), or set {VARIABLE} to a folder that they share",
            ) from None

    @contextmanager
    def alone(self, pause: Pause) -> Iterator[None]:
        """Hold the folder's lock, so that no other process takes or clears claims."""
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            while not _locked(folder, fcntl.LOCK_EX):
                pause(0.002)
            yield
        finally:
            os.close(folder)

    def found(self) -> list[ClaimFile]:
        """Return all claims, the oldest first."""
        named = sorted(path for path in self.folder.iterdir() if FILE_NAME.fullmatch(path.name))
        return [found for path in named if (found := _look(path)) is not None]

    @contextmanager
    def taken(self, claim: Claim, devices: Sequence[Device], shape: Shape, pause: Pause, say: Say) -> Iterator[Held]:
        """Wait for devices in `shape`, and hold them until the context ends.

        Args:
            claim: claim of the launch, still without devices.
            devices: usable devices, the preferred one first.
            shape: number of groups, and devices in each.
            pause: waits for a number of seconds; raises to end the wait.
            say: prints once which launch holds the devices.
        """
        nap_s, longest_s = PAUSE_S
        told = False
        while isinstance(got := self._take(claim, devices, shape, pause), list):
            if not told:
                say(f"waiting for devices: {first_few([other.holder(claim) for other in got], 1)}")
                told = True
            pause(nap_s)
            nap_s = min(2 * nap_s, longest_s)
        try:
            yield got
        finally:
            got.give_back()

    def _take(self, claim: Claim, devices: Sequence[Device], shape: Shape, pause: Pause) -> Held | list[Claim]:
        """Take free devices, or return the claims that prevent it."""
        with self.alone(pause):
            found = self.found()
            others = [file.claim for file in found if file.alive]
            held = {part for other in others for part in other.holds}
            free = [device for device in devices if held.isdisjoint(device.parts)]
            groups = None if any(claim.excludes(other) for other in others) else grouped(free, *shape)
            if groups is None:
                wanted = claim.model_copy(update={"holds": _parts(devices)})
                return [other for other in others if wanted.excludes(other)]
            claim = claim.model_copy(update={"holds": _parts(chain(*groups))})
            path, descriptor = self._enter(claim)
            dead = [file for file in found if not file.alive]
            left = [file for file in dead if not set(file.claim.holds).isdisjoint(claim.holds)]
            for file in (*left, *(file for file in dead if not file.claim.holds)):
                file.path.unlink(missing_ok=True)
            return Held(path, descriptor, claim, groups, bool(left))

    def _enter(self, claim: Claim) -> tuple[Path, int]:
        """Create and lock the file of a claim; return path and descriptor. The caller must hold `alone`."""
        # a clock that all processes of the node share, and that cannot be set
        path = self.folder / f"{time.monotonic_ns():020d}-{claim.pid}.json"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        os.fchmod(descriptor, 0o666)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.write(descriptor, claim.model_dump_json().encode())
        return path, descriptor


def _parts(devices: Iterable[Device]) -> list[str]:
    return [part for device in devices for part in device.parts]


def _look(path: Path) -> ClaimFile | None:
    """Return the claim at `path`; None if the file is not a claim."""
    try:
        # follows no link, and does not wait for the other end of a pipe
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno in _NO_FILE:
            return None
        raise
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        # Shared locks do not block other readers.
        alive = not _locked(descriptor, fcntl.LOCK_SH)
        content = os.pread(descriptor, 1 << 20, 0)
    finally:
        os.close(descriptor)
    try:
        return ClaimFile(path, Claim.model_validate_json(content), alive)
    except ValidationError:  # of a dead launch, only an empty file counts: its content was not written yet
        return ClaimFile(path, UNREADABLE, alive) if alive or not content else None


def _locked(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@dataclass(frozen=True)
class Wanted:
    """A launch's requirements for its node.

    Args:
        spec: the spec of the launch.
        record: path of its record, `<results>/<mode>/<experiment>/launch-<i>.json`.
        isolation: which launches may run beside it; None for the platform's default.
        devices: largest number of devices that the workflow's launches hold together; on cpu the number of blocks of
            cores. None: all; on cpu as many as the launch needs.
        first: number of the preferred device among the visible ones; launches that are compared use the same number.
    """

    spec: Spec
    record: Path
    isolation: Isolation | None = None
    devices: int | None = None
    first: int = 0


def grouped(free: Sequence[Device], groups: int, size: int) -> list[list[Device]] | None:
    """Return `groups` groups of `size` devices from `free`, in order; None if there are too few."""
    if groups * size > len(free):
        return None
    return [list(free[number * size : (number + 1) * size]) for number in range(groups)]


def turned(devices: Sequence[Device], first: int) -> list[Device]:
    """Return `devices` rotated to begin with number `first`, modulo their number."""
    start = first % len(devices) if devices else 0
    return [*devices[start:], *devices[:start]]


@dataclass(frozen=True)
class Lease:
    """Held devices, one group for each replica; groups are empty if the node's devices are unknown."""

    platform: Platform
    waited_s: float
    everything: bool
    """Whether one replica holds all devices in order, so that no variable has to name them."""
    held: Held
    claims: Claims

    @property
    def keep_open(self) -> list[int]:
        """Descriptors of the lease, which lasts until all processes that inherited them have closed them."""
        return [self.held.descriptor]

    @property
    def cores(self) -> list[set[int] | None]:
        """Cores for each replica; None for all cores that this process may use."""
        if self.everything or self.platform != "cpu":
            return [None for _ in self.held.groups]
        return [{core for device in group for core in device.cores} for group in self.held.groups]

    def environments(self, base: Mapping[str, str]) -> list[dict[str, str]]:
        """Return `base` for each replica, with the variable that names its devices."""
        return [{**base, **self._variables(group)} for group in self.held.groups] or [dict(base)]

    def neighbours(self) -> list[str]:
        """Return the names of launches that currently hold other devices of the node."""
        others = [found.claim for found in self.claims.found() if found.alive and found.path != self.held.path]
        return sorted(claim.name_beside(self.held.claim) for claim in others if claim is not UNREADABLE)

    def placement(self, neighbours: Sequence[str]) -> Placement:
        """Return the record's facts about the lease; `neighbours` are the launches seen during counted passes."""
        devices = list(chain(*self.held.groups))
        return Placement(
            node=node_name(),
            devices=[device.name for device in devices],
            visible=[device.visible for device in devices],
            isolation=self.held.claim.isolation,
            waited_s=round(self.waited_s, 3),
            neighbours=list(neighbours),
            job=scheduler_job(),
        )

    def _variables(self, devices: Sequence[Device]) -> dict[str, str]:
        if self.everything or not devices:
            return {}
        if self.platform == "cpu":
            return {inventory.MEMORY_NODES: inventory.memory_nodes(core for device in devices for core in device.cores)}
        told_so = {VARIABLES[self.platform]: ",".join(device.visible for device in devices)}
        # otherwise CUDA would number the fastest device first if devices differ
        return told_so | ({"CUDA_DEVICE_ORDER": "PCI_BUS_ID"} if self.platform == "cuda" else {})


@contextmanager
def lease(wanted: Wanted, pause: Pause, say: Say) -> Iterator[Lease]:
    """Wait until the devices for `wanted` are free, and hold them until the context ends.

    On cpu this process also runs on the cores of the lease.

    Args:
        wanted: the requirements.
        pause: waits for a number of seconds; raises to end the wait.
        say: prints once which launch holds the devices, if the launch has to wait.

    Raises:
        DeviceError: if the machine has too few devices.
        UserError: if the folder of claims cannot be used.
    """
    spec = wanted.spec
    there = visible_devices(spec.platform, wanted.devices or devices_needed(spec))
    _check(wanted, there)
    devices = turned(there or [], wanted.first * devices_needed(spec))
    claim = Claim(
        name="/".join([*wanted.record.parts[-3:-1], wanted.record.stem]),
        results=str(wanted.record.absolute().parent.parent.parent),
        pid=os.getpid(),
        # with unknown devices, launches cannot be kept on different devices
        isolation="exclusive" if there is None else wanted.isolation or usual_isolation(spec.platform),
        holds=[],
    )
    claims = Claims(Path(os.environ.get(VARIABLE) or DEFAULT))
    shape = replicas(spec), devices_per_replica(spec) if devices else 0
    began, affinity = time.monotonic(), os.sched_getaffinity(0)
    with claims.taken(claim, devices, shape, pause, say) as held:
        if end_left_behind(say) or held.left_over:
            devices = list(chain(*held.groups))
            device_memory.wait_until_free(lambda: device_memory.pids_on(spec.platform, devices), pause)
        everything = _is_everything(held.groups, there or [])
        leased = Lease(spec.platform, time.monotonic() - began, everything, held, claims)
        if pinned := [block for block in leased.cores if block]:
            os.sched_setaffinity(0, set().union(*pinned))
        try:
            yield leased
        finally:
            os.sched_setaffinity(0, affinity)


def _check(wanted: Wanted, there: Sequence[Device] | None) -> None:
    spec, needed = wanted.spec, devices_needed(wanted.spec)
    if there is None:
        if replicas(spec) > 1:
            raise DeviceError(
                "too_few_devices",
                f"no tool here lists the devices that {replicas(spec)} replicas are to share out",
                f"put nvidia-smi or npu-smi on PATH, or lower {replicas_key(spec)} to 1",
            )
        return
    visible = len(there)
    limited = wanted.devices is not None and wanted.devices < visible
    if needed <= min(visible, wanted.devices or visible):
        return
    asks = " x ".join(
        f"{replicas_key(spec) if name == 'data_parallel_size' else name} {value}"
        for name in ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")
        if (value := int(spec.engine.args.get(name) or 1)) > 1
    )
    variable = VARIABLES.get(spec.platform, "")
    found = f"{visible} {'is' if visible == 1 else 'are'} visible here"
    if variable in os.environ:
        found += f" ({variable}={os.environ[variable]})"
    if limited:
        found += f", of which devices allows {wanted.devices}"
    remedy = f"{'raise devices' if limited else 'make more visible'}, or lower what it asks for"
    raise DeviceError(
        "too_few_devices",
        f"the launch needs {needed} device{'s' if needed > 1 else ''}{f' ({asks})' if asks else ''}; {found}",
        remedy if spec.platform != "cpu" else "set devices to what it needs, or lower what it asks for",
    )


def _is_everything(groups: Sequence[Sequence[Device]], there: Sequence[Device]) -> bool:
    if len(groups) != 1 or list(groups[0]) != list(there):
        return False
    held = {core for device in there for core in device.cores}
    return not held or held == os.sched_getaffinity(0)
