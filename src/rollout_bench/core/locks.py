"""The lock of a results folder: one process at a time writes there."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import filelock

from rollout_bench.core.errors import UserError


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
