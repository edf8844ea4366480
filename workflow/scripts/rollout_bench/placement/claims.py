"""Claims: one file for each launch that waits for devices or holds some, in a folder that all on the node share.

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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from rollout_bench.errors import UserError, printable
from rollout_bench.plan.spec import Isolation

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
class Found:
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

    def found(self) -> list[Found]:
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


def _look(path: Path) -> Found | None:
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
        return Found(path, Claim.model_validate_json(content), alive)
    except ValidationError:
        return Found(path, None, alive) if alive or not content else None


def _locked(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def folder_of_claims() -> Path:
    """Where the claims of this node lie."""
    return Path(os.environ.get(VARIABLE) or DEFAULT)
