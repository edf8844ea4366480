"""The guardian: a small process that outlives the supervisor and ends the engine's process groups.

It holds the read end of a pipe. However the supervisor ends, kill -9 included, the kernel closes the
write end, and the guardian ends the groups that it was told of, then removes the engine's temporary folder.
Both sides of that pipe are in this file.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import IO

from rollout_bench.core.processes import STOPPING, Group, end_groups, members_of, shared_memory_of
from rollout_bench.measure.machine.scratch import note_shared_memory, noted_shared_memory, remove

MODULE = "rollout_bench.measure.launch.guardian"


class Guardian:
    """The supervisor's handle on its guardian.

    Args:
        log: file that takes the guardian's output; it must not hold on to a terminal or a pipe of the caller's.
        environment: environment with a PYTHONPATH on which this package is found.
        folder: the engine's temporary folder.
        keep_open: descriptors that it keeps open until it has ended the groups.
    """

    def __init__(
        self, log: IO[bytes], environment: dict[str, str], folder: Path, keep_open: Sequence[int] = ()
    ) -> None:
        self._log = log
        self._environment = environment
        self._folder = folder
        self._keep_open = keep_open
        self._groups: list[Group] = []
        self._process = self._start()

    @property
    def pid(self) -> int:
        """Pid of the guardian that is running now."""
        return self._process.pid

    def watch(self, group: Group) -> None:
        """Have `group` ended once this process ends or calls `end`."""
        self._groups.append(group)
        self._tell(group)

    def note_shared_memory(self) -> None:
        """Note the shared memory of the groups, so that it is removed even if all of them are killed at once."""
        note_shared_memory(self._folder, shared_memory_of(members_of(self._groups)))

    def replace_if_dead(self) -> bool:
        """Start another guardian if somebody ended this one; return whether that was needed."""
        if self._process.poll() is None:
            return False
        self._close()
        self._process = self._start()
        return True

    def end(self) -> bool:
        """End the groups, in this process if the guardian is dead; return whether all its processes are gone."""
        self._close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=90)
        return clean_up(self._groups, self._folder)

    def _start(self) -> subprocess.Popen[bytes]:
        # On its command line: were this process killed before it had told the groups, the guardian would remove the
        # folder, by which alone the next launch could find what still runs, and end nothing.
        groups = [f"{group.leader}:{group.started}" for group in self._groups]
        return subprocess.Popen(
            [sys.executable, "-S", "-m", MODULE, *groups, str(self._folder)],
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
            env=self._environment,
            pass_fds=self._keep_open,
            start_new_session=True,
        )

    def _tell(self, group: Group) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # dead already: its pidfd will say so
            self._process.stdin.write(f"{group.leader}:{group.started}\n".encode())
            self._process.stdin.flush()

    def _close(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()


def clean_up(groups: Sequence[Group], folder: Path) -> bool:
    """End `groups`, remove their shared memory and `folder`; return whether all processes are gone."""
    shared = shared_memory_of(members_of(groups)) | noted_shared_memory(folder)
    ended = end_groups(groups)
    remove(shared)
    shutil.rmtree(folder, ignore_errors=True)
    return ended


def main() -> int:
    """Take `<leader>:<start>` of each group from the command line and stdin, and clean up after them at end of file."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
    os.chdir("/")
    *known, folder = sys.argv[1:]
    groups = []
    for text in chain(known, sys.stdin):
        leader, started = text.split(":")
        groups.append(Group(int(leader), int(started)))
    return 0 if clean_up(groups, Path(folder)) else 1


if __name__ == "__main__":
    sys.exit(main())
