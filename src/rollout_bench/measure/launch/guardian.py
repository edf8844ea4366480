"""The guardian: a small process that outlives the supervisor and ends the engine's process groups.

The guardian holds the read end of a pipe. When the supervisor ends, even by kill -9, the kernel closes the write end.
The guardian then ends all registered groups and removes the engine's temporary folder. This file has both sides of the
pipe.
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
        log: file for the guardian's output; a terminal or a pipe of the caller would be kept open.
        environment: environment with a PYTHONPATH that includes this package.
        folder: the engine's temporary folder.
        keep_open: descriptors that the guardian keeps open until it has ended the groups.
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
        """Pid of the current guardian."""
        return self._process.pid

    def watch(self, group: Group) -> None:
        """Register `group`, to be ended when this process ends or calls `end`."""
        self._groups.append(group)
        self._tell(group)

    def note_shared_memory(self) -> None:
        """Record the shared memory of the groups, so that it is removed even if all processes are killed together."""
        note_shared_memory(self._folder, shared_memory_of(members_of(self._groups)))

    def replace_if_dead(self) -> bool:
        """Start another guardian if the current one is dead; return whether it was dead."""
        if self._process.poll() is None:
            return False
        self.begin_end()
        self._process = self._start()
        return True

    def end(self) -> bool:
        """End the groups, in this process if the guardian is dead; return whether all their processes are gone."""
        self.begin_end()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=90)
        return clean_up(self._groups, self._folder)

    def _start(self) -> subprocess.Popen[bytes]:
        # The groups are on the command line because this process may be killed before it writes them to the pipe.
        # The guardian would then end nothing and remove the folder that the next launch needs to find the processes.
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
        with contextlib.suppress(BrokenPipeError):  # dead already: its pidfd shows it
            self._process.stdin.write(f"{group.leader}:{group.started}\n".encode())
            self._process.stdin.flush()

    def begin_end(self) -> None:
        """Let the guardian begin to end the groups, without waiting."""
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
    """Read `<leader>:<start>` of each group from the command line and stdin; clean up after them at end of file."""
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
