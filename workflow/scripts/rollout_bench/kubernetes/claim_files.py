"""Files of launches on a results claim: which are taken, and how, since whatever pod mounts it may have put them there.

Only what a launch leaves is read, only plain files, and no link is followed: it could lead to any file of the machine
that collects.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
from pathlib import Path, PurePosixPath

from rollout_bench.errors import UserError

_LEFT = re.compile(
    r"(?:results|results/failures|logs)/(?P<launch>[^/]+/[^/]+/launch-\d+)"
    r"(?:\.json|\.(?:sequences|server)\.jsonl\.gz|\.operators\.csv\.(?:gz|txt)|\.traces/.+|(?:\.replica-\d+)?\.log)"
)
_LONGEST = 200
"""Bytes in a name, at most; a file system takes 255, and copies have a longer name for a while."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe without a writer would be waited for


def launch_of(path: str) -> str | None:
    """The launch, `<mode>/<experiment>/launch-<i>`, that left a file at `path` below the claim; None if none did."""
    match, parts = _LEFT.fullmatch(path), path.split("/")
    odd = any(part in ("", ".", "..") or len(part.encode()) > _LONGEST for part in parts)
    return None if match is None or odd else match["launch"]


def copy_file(root: Path, path: str, target: Path) -> None:
    """Copies the plain file at `path` below `root` to `target`, through to the disk.

    Raises:
        UserError: it is no plain file, it or a folder on the way from `root` is a link, or it can't be copied.
    """
    *folders, name = PurePosixPath(path).parts
    descriptor = -1
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        for flags, part in [*((_DIRECTORY, folder) for folder in folders), (_FILE, name)]:
            above, descriptor = descriptor, os.open(part, flags, dir_fd=descriptor)
            os.close(above)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "is no plain file")
        with open(descriptor, "rb", closefd=False) as source, target.open("wb") as file:
            shutil.copyfileobj(source, file, 1 << 20)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        linked = error.errno in (errno.ELOOP, errno.ENOTDIR)
        problem = "is a link, or lies behind one, and is not followed" if linked else error.strerror
        raise UserError(f"{root / path}: {problem}", "put the file itself there, and collect again") from None
    finally:
        if descriptor >= 0:
            os.close(descriptor)
