"""Keep tests, and every Python process that they start, out of what the clone and its user hold.

An audit hook (PEP 578) sees each file that Python opens, lists, makes, renames or removes. It refuses what lies below
a guarded folder and notes it down, as the code under test may treat the refusal like any other error. It can't see
`stat`; so it refuses the clone as a working folder, too, from where `results/` leads to a guarded one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

# Every Python of every test imports this first, and is to start as fast as without: so no pathlib.

VARIABLE = "ROLLOUT_BENCH_TESTS_KEEP_OUT"
"""Holds the arguments of `watch`, one a line, for the processes that tests start."""

PATHS = {
    "open": (0,),
    "os.chdir": (0,),
    "os.chmod": (0,),
    "os.chown": (0,),
    "os.link": (0, 1),
    "os.listdir": (0,),
    "os.mkdir": (0,),
    "os.remove": (0,),
    "os.rename": (0, 1),
    "os.rmdir": (0,),
    "os.scandir": (0,),
    "os.symlink": (1,),
    "os.truncate": (0,),
    "os.utime": (0,),
    "sqlite3.connect": (0,),
    "subprocess.Popen": (2,),
}
"""Audit event -> which of its arguments are paths."""

WORKING_FOLDER = {"os.chdir", "subprocess.Popen"}


class KeptOutError(RuntimeError):
    """A test touched what it must not depend on."""


def watch(log: str, clone: str, *folders: str) -> Callable[[], None]:
    """Refuse from now on what touches one of `folders` or works in `clone`; append each refusal to the file `log`.

    All paths are absolute. Returns what ends it, as an audit hook itself stays until the process ends.
    """
    below = tuple(folder + os.sep for folder in folders)
    watched = dict(PATHS)

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        for place in watched.get(event, ()):
            path = _absolute(arguments[place])
            if path in folders or path.startswith(below) or (path == clone and event in WORKING_FOLDER):
                test = os.environ.get("PYTEST_CURRENT_TEST", "")
                refusal = f"{event} {path} by {' '.join(sys.argv)} in {test or 'no test'}"
                with open(log, "a") as file:  # noqa: PTH123
                    file.write(f"{refusal}\n")
                raise KeptOutError(refusal)

    sys.addaudithook(hook)
    return watched.clear


def _absolute(path: object) -> str:
    """Return `path` without links followed, which would take long; empty where it is a descriptor or none."""
    try:
        return os.path.abspath(os.fsdecode(path))  # type: ignore[arg-type]  # noqa: PTH100
    except (TypeError, FileNotFoundError):  # the latter of a relative one where the working folder is gone
        return ""
