"""Finds out whether other processes use the machine when a launch begins, and names them.

A launch on a busy machine takes minutes and is then invalid. An early message lets the user act.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil

from rollout_bench.contracts.host_limits import HOST_LIMITS
from rollout_bench.core.errors import printable
from rollout_bench.measure.machine.host import Reading, kernel_thread, read_host

LOOK_S = 0.3
"""Length of the observation in seconds; the kernel counts a core's time in hundredths of a second."""

NAMED = 3
"""Number of the busiest processes that are named."""

_COMMAND = 60
"""Number of characters shown of a command."""

(_SHARED,) = (limit for limit in HOST_LIMITS if limit.code == "cpu_shared")

BUSY = _SHARED.invalid
"""Share of the cores' time used by others above which a launch would be invalid."""


@dataclass(frozen=True)
class User:
    """A process outside the launch; `share` is its part of all cores' time."""

    pid: int
    name: str
    share: float

    def __str__(self) -> str:
        thread = kernel_thread(self.pid, self.name)
        if thread is not None:
            return f"the kernel ({thread}; pid {self.pid}, {100 * self.share:.0f} %)"
        try:
            process = psutil.Process(self.pid)
            command = " ".join(" ".join(process.cmdline()).split()) or self.name
            who = f"{process.username()}: {printable(command, _COMMAND)}"
        except (psutil.Error, OSError):
            who = "ended since"
        return f"{self.name} (pid {self.pid}, {100 * self.share:.0f} %, {who})"


@dataclass(frozen=True)
class Use:
    """The share of all cores' time that others use, and the busiest of them."""

    share: float
    users: tuple[User, ...]

    def __str__(self) -> str:
        named = "; ".join(map(str, self.users)) or "nobody that can be named"
        return f"others use {100 * self.share:.0f} % of the cores' time: {named}"


def use_between(before: Reading, after: Reading) -> Use:
    """Return the use by others between two readings."""
    total = max(1, after.total - before.total)
    used = {key: (name, ticks - before.others.get(key, ("", 0))[1]) for key, (name, ticks) in after.others.items()}
    busiest = sorted((key for key in used if used[key][1] > 0), key=lambda key: -used[key][1])[:NAMED]
    # when a child ends, its whole time is added to own, even the time before the first reading
    others = max(sum(ticks for _, ticks in used.values()), after.busy - before.busy - max(0, after.own - before.own))
    return Use(min(1.0, others / total), tuple(User(key[0], used[key][0], used[key][1] / total) for key in busiest))


def ours() -> set[int]:
    """Return the pids of this process, its ancestors and its descendants.

    Snakemake's work at the start of a launch is over before anything is measured.
    """
    found = {os.getpid()}
    with contextlib.suppress(psutil.Error):  # a process that ends meanwhile
        here = psutil.Process()
        found |= {each.pid for each in (*here.parents(), *here.children(recursive=True))}
    return found


def used_now(pause: Callable[[float], None] = time.sleep) -> Use | None:
    """Return the use by others in the next `LOOK_S` seconds, for which `pause` waits; None if unknown."""
    before = read_host((), ours())
    pause(LOOK_S)
    after = read_host((), ours())
    return None if before is None or after is None else use_between(before, after)


def tell_users(pause: Callable[[float], None], say: Callable[[str], None]) -> None:
    """Print the processes that use the machine, if they use so much that a launch would be invalid.

    Args:
        pause: waits for a number of seconds.
        say: prints a line for the user.
    """
    use = used_now(pause)
    if use is not None and use.share > BUSY:
        say(str(use))
