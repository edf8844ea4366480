"""Locks of a results folder, where one process at a time writes, and of a file that several append to."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import filelock

from rollout_bench.core.errors import UserError
from rollout_bench.core.files import write_whole


@contextlib.contextmanager
def locked(results: Path, remedy: str) -> Iterator[None]:
    """Hold the lock of the folder `results` inside the block; make the folder if it is missing.

    The kernel releases the lock when its process ends, for any reason.

    Args:
        results: the folder.
        remedy: what the user should do while another workflow writes there.

    Raises:
        UserError: if another process has the lock, or the folder is not writable.
    """
    try:
        results.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(results / ".lock", blocking=False):
            yield
    except filelock.Timeout as error:
        raise UserError(
            f"{results.resolve()}: another workflow is running that writes its results there", remedy
        ) from error
    except OSError as error:
        problem = f"{error.filename or results}: cannot be written: {error.strerror}"
        raise UserError(problem, "check owner, permissions and space") from None


def append_whole(path: Path, text: str) -> None:
    """Append `text` as lines of their own to the file at `path`: whole, also if others append at the same time.

    Raises:
        UserError: the file cannot be read or written; it is then unchanged.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path = path.resolve()  # so that all who append through links take one lock
        with filelock.FileLock(path.with_name(f".{path.name}.lock"), timeout=60):
            before = path.read_bytes() if path.exists() else b""
            write_whole(path, before + b"\n" * (before[-1:] not in (b"", b"\n")) + text.encode())
    except OSError as error:
        problem = f"{path}: cannot be written: {error.strerror or 'another process holds its lock'}"
        raise UserError(problem, "check owner, permissions and space") from None
