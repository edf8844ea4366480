"""Whether others use the machine as a launch begins, and who they are.

A launch on a busy machine takes its minutes and is then invalid. Whoever is told beforehand can do something about it.
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
"""How long the machine is looked at: a core's time is counted in hundredths of a second."""

NAMED = 3
"""Of those who use it, the busiest are named."""

_COMMAND = 60
"""Characters of a command that are shown."""

(_SHARED,) = (limit for limit in HOST_LIMITS if limit.code == "cpu_shared")

BUSY = _SHARED.invalid
"""Share of the cores' time that others use, from which on a launch would be invalid."""


@dataclass(frozen=True)
class User:
    """A process outside of the launch: `share` is what it uses of all cores' time."""

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
    """What others use of all cores' time, and who uses most of it."""

    share: float
    users: tuple[User, ...]

    def __str__(self) -> str:
        named = "; ".join(map(str, self.users)) or "nobody that can be named"
        return f"others use {100 * self.share:.0f} % of the cores' time: {named}"


def use_between(before: Reading, after: Reading) -> Use:
    """Return what others used between two readings."""
    total = max(1, after.total - before.total)
    used = {key: (name, ticks - before.others.get(key, ("", 0))[1]) for key, (name, ticks) in after.others.items()}
    busiest = sorted((key for key in used if used[key][1] > 0), key=lambda key: -used[key][1])[:NAMED]
    # own has all that a child of ours used once that ends, which may have been long before the first reading
    others = max(sum(ticks for _, ticks in used.values()), after.busy - before.busy - max(0, after.own - before.own))
    return Use(min(1.0, others / total), tuple(User(key[0], used[key][0], used[key][1] / total) for key in busiest))


def ours() -> set[int]:
    """Return the pids of this process, of what it was started by, and of what it started.

    What Snakemake does while a launch begins is its own, and over before anything is measured.
    """
    found = {os.getpid()}
    with contextlib.suppress(psutil.Error):  # one that ends meanwhile
        here = psutil.Process()
        found |= {each.pid for each in (*here.parents(), *here.children(recursive=True))}
    return found


def used_now(pause: Callable[[float], None] = time.sleep) -> Use | None:
    """Return what others use in the next `LOOK_S`, through which `pause` waits; None where the system does not say."""
    before = read_host((), ours())
    pause(LOOK_S)
    after = read_host((), ours())
    return None if before is None or after is None else use_between(before, after)


def tell_users(pause: Callable[[float], None], say: Callable[[str], None]) -> None:
    """Say who uses the machine, if others do so much that a launch would be invalid.

    Args:
        pause: waits for so many seconds.
        say: tells the user.
    """
    use = used_now(pause)
    if use is not None and use.share > BUSY:
        say(str(use))
