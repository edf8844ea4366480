"""Leases: the right of one launch to use devices of its node, for as long as its engine lives.

A claim counts as long as its file is locked by its launch. The lock is the kernel's (flock), on an open file that the
guardian inherits: it goes when the last of them has closed it, so however the measuring command ends, the claim holds
until the engine's processes are gone and no longer. That is why this is `fcntl.flock` and no lock of filelock: what
filelock gives back it unlocks for everybody who inherited it, and it keeps its descriptor to itself.

Whoever enters, takes or clears away holds the folder's own lock meanwhile, some milliseconds; there is no lock file
that somebody might delete.

All users may write to the folder, so anything may lie there. Only regular files that have the name and the content of a
claim are looked at or removed, never through a link.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from rollout_bench.contracts.record import Placement
from rollout_bench.contracts.spec import Isolation, Spec, devices_needed, devices_per_replica, replicas
from rollout_bench.core.errors import UserError, printable
from rollout_bench.core.processes import node_name, scheduler_job
from rollout_bench.measure.machine import device_memory, inventory
from rollout_bench.measure.machine.device import Device, DeviceError
from rollout_bench.measure.machine.inventory import VARIABLES, usual_isolation, visible_devices
from rollout_bench.measure.machine.links import Links, choose, link_kinds, links_of, turned
from rollout_bench.measure.machine.scratch import end_left_behind

VARIABLE = "ROLLOUT_BENCH_LEASES"

DEFAULT = Path("/tmp/rollout-bench-leases")
"""The one place that all users of a node share. A container has a /tmp of its own: mount this, or name another."""

FILE_NAME = re.compile(r"\d{20}-\d+\.json")
"""Name of a claim's file: the moment at which it was entered, in ns of the monotonic clock, and the process."""

_NO_FILE = {errno.ENOENT, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENXIO}
"""Why a file can't be opened that is no claim: it is gone, another user hides it, it is a link or a socket."""

Shown = Annotated[str, AfterValidator(lambda text: printable(" ".join(text.split())))]
"""What another user wrote and is shown to this one: one line that can do nothing but be read."""

Pause = Callable[[float], None]
"""Waits so many seconds, or raises if this process is to end."""


class Claim(BaseModel):
    """What a launch wants or holds; fields that another version adds are no matter."""

    model_config = ConfigDict(frozen=True)

    name: Shown
    """<mode>/<experiment>/launch-<i>"""
    results: str
    """Folder of its results, which tells workflows apart."""
    pid: int
    since: Shown
    isolation: Isolation
    wants: list[str]
    """Parts of all the devices that would do."""
    holds: list[Shown] | None = None
    """Parts of those that it holds; None while it waits."""


@dataclass(frozen=True)
class ClaimFile:
    """A claim's file.

    `claim` is None where it can't be read: a living one that is of another version or being written, or an empty one
    whose launch was killed before it had written it.
    """

    path: Path
    claim: Claim | None
    alive: bool


class Claims:
    """The claims of a node.

    Args:
        folder: where they lie; made if it is not there.

    Raises:
        UserError: it can't be made or used, or is a link.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if folder.is_symlink():
            raise UserError(
                f"{folder}: is a link, and whoever made it decides where claims are written and removed",
                f"remove it, or set {VARIABLE} to the folder itself",
            )
        try:
            if not folder.is_dir():
                with contextlib.suppress(FileExistsError):
                    folder.mkdir(parents=True)
                    # for every user, and not sticky: the kernel lets nobody open another's file in a sticky folder,
                    # and a dead user's claim must be cleared away by whoever comes next
                    folder.chmod(0o777)
            if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
                raise PermissionError(13, os.strerror(13), str(folder))
        except OSError as error:
            raise UserError(
                f"{folder}: can't be used for device leases: {error.strerror}",
                f"let all users write there (chmod 777), or set {VARIABLE} to a folder that they share",
            ) from None

    @contextlib.contextmanager
    def alone(self, pause: Pause) -> Iterator[None]:
        """While it holds, nobody else enters, takes or clears away."""
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            while not _locked(folder, fcntl.LOCK_EX):
                pause(0.002)
            yield
        finally:
            os.close(folder)

    def enter(self, claim: Claim) -> Own:
        """Makes the file of a claim, behind all others; to be called `alone`."""
        while True:
            # A clock that all processes of the node share, and that nobody sets.
            path = self.folder / f"{time.monotonic_ns():020d}-{claim.pid}.json"
            with contextlib.suppress(FileExistsError):
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
                break
        os.fchmod(descriptor, 0o666)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        own = Own(path, descriptor)
        own.write(claim)
        return own

    def found(self) -> list[ClaimFile]:
        """Return all claims, the oldest first."""
        named = sorted(path for path in self.folder.iterdir() if FILE_NAME.fullmatch(path.name))
        return [found for path in named if (found := _look(path)) is not None]


@dataclass(frozen=True)
class Own:
    """The claim of this process; `descriptor` keeps it while anybody has it open."""

    path: Path
    descriptor: int

    def write(self, claim: Claim) -> None:
        """Says anew what is wanted and held."""
        content = claim.model_dump_json().encode()
        os.ftruncate(self.descriptor, 0)
        os.pwrite(self.descriptor, content, 0)

    def is_lost(self) -> bool:
        """Return whether somebody removed or replaced the file, so that others may take what it holds."""
        try:
            return not os.path.samestat(os.fstat(self.descriptor), self.path.lstat())
        except OSError:
            return True

    def give_back(self) -> None:
        """Removes the claim."""
        self.path.unlink(missing_ok=True)
        os.close(self.descriptor)


def _look(path: Path) -> ClaimFile | None:
    """Return the claim at `path`; None where there is none, whatever the name says."""
    try:
        # not through a link, and not waiting for a pipe's other end
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno in _NO_FILE:
            return None
        raise
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        # A shared lock is never in the way of others who look.
        alive = not _locked(descriptor, fcntl.LOCK_SH)
        content = os.pread(descriptor, 1 << 20, 0)
    finally:
        os.close(descriptor)
    try:
        return ClaimFile(path, Claim.model_validate_json(content), alive)
    except ValidationError:
        return ClaimFile(path, None, alive) if alive or not content else None


def _locked(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def folder_of_claims() -> Path:
    """Where the claims of this node lie."""
    return Path(os.environ.get(VARIABLE) or DEFAULT)


def in_the_way(own: Claim, earlier: Sequence[Claim], later: Sequence[Claim]) -> list[Claim]:
    """Claims that have to go before `own` may take anything, free devices or not.

    Nobody overtakes: who waits longer for a device that would do is served first, or a launch that wants all devices
    would wait for ever behind those that want one. And nobody runs beside an exclusive launch.
    """
    waiting = [claim for claim in earlier if claim.holds is None]
    holding = [claim for claim in (*earlier, *later) if claim.holds is not None]
    return [
        *(claim for claim in holding if "exclusive" in (own.isolation, claim.isolation)),
        *(
            claim
            for claim in waiting
            if "exclusive" in (own.isolation, claim.isolation) or set(claim.wants) & set(own.wants)
        ),
    ]


def free(devices: Sequence[Device], claims: Sequence[Claim]) -> list[Device]:
    """Those of `devices` of which no claim holds a part."""
    held = {part for claim in claims for part in claim.holds or ()}
    return [device for device in devices if not held & set(device.parts)]


def holder_text(claim: Claim, own: Claim) -> str:
    """`claim` in words: which launch, of which process, and what it holds."""
    named, more = (claim.holds or [])[:4], len((claim.holds or [])[4:])
    parts = ", ".join(named) + (f" and {more} more" if more else "")
    exclusively = " exclusively" if claim.isolation == "exclusive" else ""
    holds = "waits before it" if claim.holds is None else f"holds {parts or 'the node'}{exclusively}"
    return f"{name_of(claim, own)} {holds} (pid {claim.pid}, since {claim.since})"


def name_of(claim: Claim, own: Claim) -> str:
    """The launch of `claim`; marked where it is of another workflow than `own`."""
    return claim.name if claim.results == own.results else f"{claim.name} (another workflow)"


PAUSE_S = (0.02, 0.5)
"""Shortest and longest time between two looks at whether the devices are free."""

UNREADABLE = Claim(
    name="a launch of another version", results="", pid=0, since="", isolation="exclusive", wants=[], holds=[]
)
"""Stands for a living claim that can't be read: nobody can say what it holds."""

Say = Callable[[str], None]

Shape = tuple[int, int, Links]
"""Groups, devices of each, and how devices are linked."""


@dataclass(frozen=True)
class Taken:
    """Devices that are held by `own`; `left_over`: a launch that was killed held one of them before."""

    own: Own
    groups: list[list[Device]]
    left_over: bool


@contextmanager
def taken(
    claims: Claims, claim: Claim, devices: Sequence[Device], shape: Shape, pause: Pause, say: Say
) -> Iterator[Taken]:
    """Waits for the devices of `shape` among `devices`, the wanted one first, and holds them while the context lasts.

    Args:
        claims: those of the node.
        claim: what is wanted, entered here.
        devices: those that would do.
        shape: how many of them are wanted.
        pause: waits so many seconds; raises what is to end the waiting.
        say: is told once who is in the way.
    """
    with claims.alone(pause):
        own = claims.enter(claim)
    try:
        yield _take(claims, own, claim, devices, shape, pause, say)
    finally:
        own.give_back()


def _take(
    claims: Claims, own: Own, claim: Claim, devices: Sequence[Device], shape: Shape, pause: Pause, say: Say
) -> Taken:
    nap_s, longest_s = PAUSE_S
    waiting = False
    while True:
        with claims.alone(pause):
            found = [f for f in claims.found() if f.path != own.path]
            alive = [(f.path, f.claim or UNREADABLE) for f in found if f.alive]
            earlier = [c for path, c in alive if path < own.path]
            later = [c for path, c in alive if path > own.path]
            obstacles = in_the_way(claim, earlier, later)
            groups = None if obstacles else choose(free(devices, [*earlier, *later]), *shape, *devices[:1])
            if groups is not None:
                parts = [part for group in groups for device in group for part in device.parts]
                own.write(claim.model_copy(update={"holds": parts}))
                return Taken(own, groups, _clear_away([f for f in found if not f.alive], parts))
        if not waiting:
            waiting = True
            holders = obstacles or [c for c in (*earlier, *later) if set(c.holds or ()) & set(claim.wants)]
            more = f", and {len(holders) - 1} more" if len(holders) > 1 else ""
            say(f"waiting for devices: {holder_text(holders[0], claim)}{more}" if holders else "waiting for devices")
        pause(nap_s)
        nap_s = min(2 * nap_s, longest_s)


def _clear_away(dead: Sequence[ClaimFile], taken: Sequence[str]) -> bool:
    """Removes what launches left that were killed, if they only waited or held some of `taken`; True if they held."""
    held = False
    for found in dead:
        holds = found.claim.holds if found.claim is not None else None
        if not holds or set(holds) & set(taken):
            found.path.unlink(missing_ok=True)
            held = held or bool(holds)
    return held


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
            links=link_kinds(self.links, [[device.number for device in group] for group in self.groups]),
            job=scheduler_job(),
        )

    def _variables(self, devices: Sequence[Device]) -> dict[str, str]:
        if self.everything or not self.managed or not devices:
            return {}
        if self.wanted.spec.platform == "cpu":
            return {inventory.MEMORY_NODES: inventory.memory_nodes(core for device in devices for core in device.cores)}
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
    there = visible_devices(spec.platform, wanted.devices or needed)
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
    return list(groups[0]) == list(there) and (not held or inventory.are_all(held))
