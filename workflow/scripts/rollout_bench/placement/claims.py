"""Claims: one file for each launch that waits for devices or holds some, in a folder that all on the node share.

A claim counts as long as its file is locked by its launch. The lock is the kernel's (flock), on an open file that the
guardian inherits: it goes when the last of them has closed it, so however the measuring command ends, the claim holds
until the engine's processes are gone and no longer. That is why this is `fcntl.flock` and no lock of filelock: what
filelock gives back it unlocks for everybody who inherited it, and it keeps its descriptor to itself.

Whoever enters, takes or clears away holds the folder's own lock meanwhile, some milliseconds; there is no lock file
that somebody might delete.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from rollout_bench.errors import UserError
from rollout_bench.plan.machine import Isolation

VARIABLE = "ROLLOUT_BENCH_LEASES"

DEFAULT = Path("/tmp/rollout-bench-leases")
"""The one place that all users of a node share. A container has a /tmp of its own: mount this, or name another."""

Pause = Callable[[float], None]
"""Waits so many seconds, or raises if this process is to end."""


class Claim(BaseModel):
    """What a launch wants or holds; fields that another version adds are no matter."""

    model_config = ConfigDict(frozen=True)

    name: str
    """<mode>/<experiment>/launch-<i>"""
    results: str
    """Folder of its results, which tells workflows apart."""
    pid: int
    since: str
    isolation: Isolation
    wants: list[str]
    """Parts of all the devices that would do."""
    holds: list[str] | None = None
    """Parts of those that it holds; None while it waits."""


@dataclass(frozen=True)
class Found:
    """A claim's file. `claim` is None where it can't be read: it is being written, or its launch was killed then."""

    path: Path
    claim: Claim | None
    alive: bool


class Claims:
    """The claims of a node.

    Args:
        folder: where they lie; made if it is not there.

    Raises:
        UserError: it can't be made or used.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
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
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
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

    def found(self) -> list[Found]:
        """All claims, the oldest first."""
        claims = []
        for path in sorted(self.folder.glob("*.json")):
            with contextlib.suppress(FileNotFoundError, PermissionError):  # a file that another user hides is no claim
                claims.append(_look(path))
        return claims


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

    def give_back(self) -> None:
        """Removes the claim."""
        self.path.unlink(missing_ok=True)
        os.close(self.descriptor)


def _look(path: Path) -> Found:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # A shared lock is never in the way of others who look.
        alive = not _locked(descriptor, fcntl.LOCK_SH)
        content = os.pread(descriptor, 1 << 20, 0)
    finally:
        os.close(descriptor)
    try:
        return Found(path, Claim.model_validate_json(content), alive)
    except ValidationError:
        return Found(path, None, alive)


def _locked(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def folder_of_claims() -> Path:
    """Where the claims of this node lie."""
    return Path(os.environ.get(VARIABLE) or DEFAULT)
