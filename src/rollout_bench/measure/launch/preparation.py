"""The user's command that runs before each start of an engine."""

import shlex
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO

from rollout_bench.contracts.failures import Cause
from rollout_bench.core.processes import Group, end_groups, group_of, pause

POLL_S = 0.05


def prepare(
    command: Sequence[str],
    environment: Mapping[str, str],
    log: IO[bytes],
    until: float,
    signals: int,
    watch: Callable[[Group], None],
) -> Cause | None:
    """Run `command` and wait for its end; return the reason if it fails.

    Args:
        command: program and arguments.
        environment: the engine's environment.
        log: file for its output.
        until: latest end, on the monotonic clock.
        signals: descriptor from `signals_as_descriptor`.
        watch: registers its session, which must end with the engine.

    Raises:
        Interrupted: if a signal arrived; the command was ended.
    """
    named = f"engine.before: {shlex.join(command)}"
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
    except OSError as error:
        fix = "write a program and its arguments as a list; for a shell: [bash, -c, COMMAND]"
        return Cause("before_failed", f"{named}: {error.strerror}", fix)
    group = group_of(process.pid)
    watch(group)
    try:
        while process.poll() is None:
            if time.monotonic() > until:
                fix = "read the log for where it hung; raise timeout_s if it only needs longer"
                return Cause("before_timeout", f"{named}: had not ended when the launch's time was over", fix)
            pause(signals, POLL_S)
    finally:
        if process.returncode is None:
            end_groups([group])
            process.wait()
    if process.returncode == 0:
        return None
    ended = f"signal {-process.returncode}" if process.returncode < 0 else f"status {process.returncode}"
    return Cause("before_failed", f"{named}: ended with {ended}", "read its output in the log, and correct it")
