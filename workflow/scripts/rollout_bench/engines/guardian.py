"""The guardian: a small process that outlives the supervisor and ends the engine's process group.

It holds the read end of a pipe. However the supervisor ends, kill -9 included, the kernel closes the
write end, and the guardian ends the groups that it was told of. Both sides of that pipe are in this file.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from typing import IO

from rollout_bench.engines.processes import Group, end_group

MODULE = "rollout_bench.engines.guardian"


class Guardian:
    """The supervisor's handle on its guardian.

    Args:
        log: file that takes the guardian's output; it must not hold on to a terminal or a pipe of the caller's.
        environment: environment with a PYTHONPATH on which this package is found.
    """

    def __init__(self, log: IO[bytes], environment: dict[str, str]) -> None:
        self._log = log
        self._environment = environment
        self._groups: list[Group] = []
        self._process = self._start()

    @property
    def pid(self) -> int:
        """Pid of the guardian that is running now."""
        return self._process.pid

    def watch(self, group: Group) -> None:
        """Has `group` ended once this process ends or calls `end`."""
        self._groups.append(group)
        self._tell(group)

    def replace_if_dead(self) -> bool:
        """Starts another guardian if somebody ended this one; returns whether that was needed."""
        if self._process.poll() is None:
            return False
        self._close()
        self._process = self._start()
        for group in self._groups:
            self._tell(group)
        return True

    def end(self) -> bool:
        """Ends the groups, in this process if the guardian is dead; returns whether all their processes are gone."""
        self._close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=90)
        return all([end_group(group) for group in self._groups])

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-S", "-m", MODULE],
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
            env=self._environment,
            start_new_session=True,
        )

    def _tell(self, group: Group) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # dead already: its pidfd will say so
            self._process.stdin.write(f"{group.leader} {group.started}\n".encode())
            self._process.stdin.flush()

    def _close(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()


def main() -> int:
    """Reads groups from stdin, one `<leader> <start>` a line, and ends them at end of file."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.chdir("/")
    groups = []
    for line in sys.stdin:
        leader, started = line.split()
        groups.append(Group(int(leader), int(started)))
    return 0 if all([end_group(group) for group in groups]) else 1


if __name__ == "__main__":
    sys.exit(main())
