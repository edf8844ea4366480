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

import contextlib
import errno
import fcntl
import os
import re
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from rollout_bench.contracts.progress import WAITING
from rollout_bench.contracts.record import Placement
from rollout_bench.contracts.spec import (
    Isolation,
    Platform,
    Spec,
    devices_needed,
    devices_per_replica,
    replicas,
)
from rollout_bench.core.errors import MeasuringFailed, printable
from rollout_bench.core.numbers import first_few
from rollout_bench.core.processes import node_name, scheduler_job
from rollout_bench.measure.launch.guardian import end_left_behind
from rollout_bench.measure.machine import inventory
from rollout_bench.measure.machine.device import Device, DeviceError

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

PAUSE_S = 0.1
"""Time between checks for free devices, in seconds."""


class LeaseFile(BaseModel):
    """The devices that a launch holds. Unknown fields from other versions are ignored."""

    model_config = ConfigDict(frozen=True)

    name: Shown
    """<mode>/<experiment>/launch-<i>"""
    results: str
    """Folder of its results, which identifies the workflow."""
    pid: int
    isolation: Isolation
    holds: list[Shown] = []
    """Parts of its devices."""
    path: Path = Field(Path(), exclude=True)
    """File of the claim."""
    alive: bool = Field(default=True, exclude=True)
    """Whether a process still holds the lock of the file."""

    def name_beside(self, own: "LeaseFile") -> str:
        """Return the launch's name, marked if its workflow differs from the workflow of `own`."""
        return self.name if self.results == own.results else f"{self.name} (another workflow)"

    def holder(self, own: "LeaseFile") -> str:
        """Return a text for the launch of `own`: this launch and the devices that it holds."""
        parts = first_few(self.holds, 4) or "the node"
        return (
            f"{self.name_beside(own)} holds {parts}{' exclusively' * (self.isolation == 'exclusive')} (pid {self.pid})"
        )


UNREADABLE = LeaseFile(name="a launch of another version", results="", pid=0, isolation="exclusive")
"""Replaces an unreadable claim whose launch is alive; it is exclusive because its devices are unknown."""


def check_folder(folder: Path) -> None:
    """Create the folder of claims if it is missing; raise `MeasuringFailed` if it cannot be used, or is a link."""
    if folder.is_symlink():
        raise MeasuringFailed(
            "not_written",
            f"{folder}: is a link, so its owner could redirect the device leases",
            f"move the link away, or set {VARIABLE} to the folder itself",
        )
    try:
        with contextlib.suppress(FileExistsError):
            folder.mkdir(parents=True)
            # Writable for every user and not sticky: a sticky folder would prevent opening and removing
            # claims that other users' dead launches left.
            folder.chmod(0o777)
        if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError(13, os.strerror(13), str(folder))
    except OSError as error:
        raise MeasuringFailed(
            "not_written",
            f"{folder}: can't be used for device leases: {error.strerror}",
            f"let all users write there (chmod 777), or set {VARIABLE} to a folder that they share",
        ) from None


@contextlib.contextmanager
def folder_lock(folder: Path, pause: Pause) -> Iterator[None]:
    """Hold the folder's lock, so that no other process takes or clears claims."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        while not _try_lock(descriptor, fcntl.LOCK_EX):
            pause(0.002)
        yield
    finally:
        os.close(descriptor)


def claims_in(folder: Path) -> list[LeaseFile]:
    """Return all claims, the oldest first."""
    named = sorted(path for path in folder.iterdir() if FILE_NAME.fullmatch(path.name))
    return [found for path in named if (found := _read_claim(path)) is not None]


def _read_claim(path: Path) -> LeaseFile | None:
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
        alive = not _try_lock(descriptor, fcntl.LOCK_SH)
        content = os.pread(descriptor, 1 << 20, 0)
    finally:
        os.close(descriptor)
    try:
        claim = LeaseFile.model_validate_json(content)
    except ValidationError:
        if content and not alive:  # of a dead launch, only an empty file counts: its content was not written yet
            return None
        claim = UNREADABLE
    return claim.model_copy(update={"path": path, "alive": alive})


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@dataclass(frozen=True)
class Lease:
    """The claim of this process, and the devices that it holds.

    Args:
        claim: content of the claim's file.
        descriptor: keeps the claim valid while any process has it open.
        groups: the devices for each replica; groups are empty if the node's devices are unknown.
        left_over: whether a killed launch held one of the devices before.
        platform: kind of the devices.
        everything: whether one replica holds all devices in order, so that no variable has to name them.
        waited_s: time until the devices were free, in seconds.
    """

    claim: LeaseFile
    descriptor: int
    groups: list[list[Device]]
    left_over: bool
    platform: Platform = "unknown"
    everything: bool = True
    waited_s: float = 0.0

    @property
    def devices(self) -> list[Device]:
        """The devices of all replicas."""
        return [device for group in self.groups for device in group]

    @property
    def cores(self) -> list[set[int] | None]:
        """Cores for each replica; None for all cores that this process may use."""
        return [None if self.everything else _cores(group) or None for group in self.groups]

    def is_lost(self) -> bool:
        """Return whether the file was removed or replaced, so that others may take the devices."""
        try:
            return not os.path.samestat(os.fstat(self.descriptor), self.claim.path.lstat())
        except OSError:
            return True

    def environments(self, base: Mapping[str, str]) -> list[dict[str, str]]:
        """Return `base` for each replica, with the variable that names its devices."""
        return [{**base, **self._variables(base, group)} for group in self.groups]

    def neighbours(self) -> list[str]:
        """Return the names of launches that currently hold other devices of the node."""
        others = [each for each in claims_in(self.claim.path.parent) if each.alive and each.path != self.claim.path]
        return sorted(each.name_beside(self.claim) for each in others if each.pid)

    def placement(self, neighbours: Sequence[str]) -> Placement:
        """Return the record's facts about the lease; `neighbours` are the launches seen during counted passes."""
        return Placement(
            node=node_name(),
            devices=[device.name for device in self.devices],
            visible=[device.visible for device in self.devices],
            isolation=self.claim.isolation,
            waited_s=round(self.waited_s, 3),
            neighbours=list(neighbours),
            job=scheduler_job(),
        )

    def _variables(self, base: Mapping[str, str], devices: Sequence[Device]) -> dict[str, str]:
        # what a shell set may be UUIDs, or numbers in CUDA's own order
        is_set = inventory.VARIABLES.get(self.platform, "") in base
        if not devices or (self.everything and not is_set):
            return {}
        if self.platform == "cpu":
            return {inventory.MEMORY_NODES: inventory.memory_nodes(_cores(devices))}
        told_so = {inventory.VARIABLES[self.platform]: ",".join(device.visible for device in devices)}
        # otherwise CUDA would number the fastest device first if devices differ
        return told_so | ({"CUDA_DEVICE_ORDER": "PCI_BUS_ID"} if self.platform == "cuda" else {})


def _cores(devices: Iterable[Device]) -> set[int]:
    return {core for device in devices for core in device.cores}


@contextlib.contextmanager
def lease_devices(
    folder: Path,
    claim: LeaseFile,
    devices: Sequence[Device],
    shape: tuple[int, int],
    pause: Pause,
    say: Callable[[str], None],
) -> Iterator[Lease]:
    """Wait for devices in `shape`, and hold them until the context ends.

    Args:
        folder: folder of the claims.
        claim: claim of the launch, still without devices.
        devices: usable devices, the preferred one first.
        shape: number of groups, and devices in each.
        pause: waits for a number of seconds; raises to end the wait.
        say: prints which launch holds the devices, and again when another does.
    """
    check_folder(folder)
    got = _take_devices(folder, claim, devices, shape, pause)
    printed = ""
    while isinstance(got, list):
        holders = first_few([other.holder(claim) for other in got], 1)
        if holders != printed:
            say(f"{WAITING}: {holders}")
        printed = holders
        pause(PAUSE_S)
        got = _take_devices(folder, claim, devices, shape, pause)
    try:
        yield got
    finally:
        got.claim.path.unlink(missing_ok=True)
        os.close(got.descriptor)


def _take_devices(
    folder: Path, claim: LeaseFile, devices: Sequence[Device], shape: tuple[int, int], pause: Pause
) -> Lease | list[LeaseFile]:
    """Take free devices, or return the claims that prevent it."""
    groups, size = shape
    with folder_lock(folder, pause):
        claims = claims_in(folder)
        others = [each for each in claims if each.alive]
        exclusive = [each for each in others if "exclusive" in (claim.isolation, each.isolation)]
        free = [device for device in devices if not any(set(device.parts) & set(each.holds) for each in others)]
        if exclusive or groups * size > len(free):
            return [each for each in others if each in exclusive or not set(_parts(devices)).isdisjoint(each.holds)]
        chosen = [free[number * size : (number + 1) * size] for number in range(groups)]
        # a clock that all processes of the node share, and that cannot be set
        path = folder / f"{time.monotonic_ns():020d}-{claim.pid}.json"
        claim = claim.model_copy(update={"holds": _parts(free[: groups * size]), "path": path})
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        os.fchmod(descriptor, 0o666)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.write(descriptor, claim.model_dump_json().encode())
        left = [each for each in claims if not (each.alive or (each.holds and set(each.holds).isdisjoint(claim.holds)))]
        for each in left:
            each.path.unlink(missing_ok=True)
        return Lease(claim, descriptor, chosen, left_over=any(each.holds for each in left))


def _parts(devices: Iterable[Device]) -> list[str]:
    return [part for device in devices for part in device.parts]


@dataclass(frozen=True)
class LeaseRequest:
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


@contextlib.contextmanager
def lease(wanted: LeaseRequest, pause: Pause, say: Callable[[str], None]) -> Iterator[Lease]:
    """Wait until the devices for `wanted` are free, and hold them until the context ends.

    On cpu this process also runs on the cores of the lease.

    Args:
        wanted: the requirements.
        pause: waits for a number of seconds; raises to end the wait.
        say: prints which launch holds the devices, if the launch has to wait, and again when another does.

    Raises:
        DeviceError: if the machine has too few devices.
        MeasuringFailed: if the folder of claims cannot be used.
    """
    spec, needed = wanted.spec, devices_needed(wanted.spec)
    visible = inventory.visible_devices(spec.platform, wanted.devices or needed)
    _check(wanted, visible)
    devices = visible or []
    start = wanted.first * needed % max(1, len(devices))
    claim = LeaseFile(
        name="/".join([*wanted.record.parts[-3:-1], wanted.record.stem]),
        results=str(wanted.record.absolute().parent.parent.parent),
        pid=os.getpid(),
        # with unknown devices, launches cannot be kept on different devices
        isolation="exclusive" if visible is None else wanted.isolation or inventory.usual_isolation(spec.platform),
    )
    began, affinity = time.monotonic(), os.sched_getaffinity(0)
    shape = replicas(spec), devices_per_replica(spec) if devices else 0
    with lease_devices(
        Path(os.environ.get(VARIABLE) or DEFAULT), claim, devices[start:] + devices[:start], shape, pause, say
    ) as held:
        if end_left_behind(say) or held.left_over:
            inventory.wait_until_free(lambda: inventory.pids_on(spec.platform, held.devices), pause)
        held = replace(
            held,
            platform=spec.platform,
            everything=held.groups == [devices] and _cores(devices) in (set(), affinity),
            waited_s=time.monotonic() - began,
        )
        if pinned := set().union(*filter(None, held.cores)):
            os.sched_setaffinity(0, pinned)
        try:
            yield held
        finally:
            os.sched_setaffinity(0, affinity)


def _check(wanted: LeaseRequest, devices: Sequence[Device] | None) -> None:
    spec, needed = wanted.spec, devices_needed(wanted.spec)
    if devices is None and replicas(spec) > 1:
        raise DeviceError(
            "too_few_devices",
            f"no tool here lists the devices that {replicas(spec)} replicas are to share out",
            f"put nvidia-smi or npu-smi on PATH, or lower {spec.mode_spec.replicas_key} to 1",
        )
    visible = len(devices or ())
    limited = f", of which devices allows {wanted.devices}" if (wanted.devices or visible) < visible else ""
    if devices is None or needed <= min(visible, wanted.devices or visible):
        return
    asks = " x ".join(
        f"{spec.mode_spec.replicas_key if name == 'data_parallel_size' else name} {value}"
        for name in ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")
        if (value := int(spec.engine.args.get(name) or 1)) > 1
    )
    variable = inventory.VARIABLES.get(spec.platform, "")
    named = f" ({variable}={os.environ[variable]})" if variable in os.environ else ""
    visible_text = f"{visible} {'is' if visible == 1 else 'are'} visible here{named}{limited}"
    raise DeviceError(
        "too_few_devices",
        f"the launch needs {needed} device{'s' if needed > 1 else ''}{f' ({asks})' if asks else ''}; {visible_text}",
        "set devices to what it needs, or lower what it asks for"
        if spec.platform == "cpu"
        else f"{'raise devices' if limited else 'make more visible'}, or lower what it asks for",
    )
