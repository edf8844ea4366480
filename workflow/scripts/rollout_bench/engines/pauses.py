"""Whether somebody held a pass up: stopped a process of the engine, froze the launch, or suspended the machine.

The times of such a pass are those of the pause. A process that was stopped leaves no trace, so the supervisor looks
while a pass runs, twice a second: at the state of each of the engine's processes, and at the clock. Who sleeps for half
a second and wakes up more than a second late was not let run, and its engine, in the same job and container, most
likely neither: `scontrol suspend`, `docker pause`, Ctrl-Z. A machine that is suspended stands still together with the
monotonic clock; the clock that counts on tells.

A look reads one small file of each process and takes 0.03 ms for each (measured): 0.02 % of a core for three of them.
"""

from __future__ import annotations

import select
import time
from collections.abc import Sequence

from rollout_bench.engines.processes import is_stopped

LOOK_S = 0.5
"""Time between two looks: what is stopped for longer is seen."""

LATE_S = 1.0
"""By how much the supervisor may wake up late: other work on its cores delays it by hundredths of a second."""


class Pauses:
    """What held up the pass that runs."""

    def __init__(self) -> None:
        self.begin(())

    def begin(self, pids: Sequence[int]) -> None:
        """Take note that a pass begins, which the processes `pids` run; none: nothing is looked at."""
        self._pids = pids
        self._stopped_s = self._late_s = 0.0
        self._suspended_s = _suspended_s()

    def wait(self, descriptors: Sequence[int], limit_s: float) -> list[int]:
        """Return which of `descriptors` are readable, once one is, or after `limit_s` seconds at the latest.

        While a pass runs it looks whether the engine can, and returns after `LOOK_S` at the latest.
        """
        if not self._pids:
            return select.select(descriptors, [], [], limit_s)[0]
        nap_s, began = min(limit_s, LOOK_S), time.monotonic()
        readable = select.select(descriptors, [], [], nap_s)[0]
        slept_s = time.monotonic() - began
        if slept_s > nap_s + LATE_S:
            self._late_s += slept_s
        elif any(is_stopped(pid) for pid in self._pids):
            self._stopped_s += slept_s
        return readable

    def end(self) -> list[str]:
        """Take note that the pass is over; return what held it up, each as the end of a sentence."""
        self._pids = ()
        held_up = (
            ("a process of the engine was stopped", self._stopped_s, 0.0),
            ("the launch as a whole was stopped or frozen", self._late_s, 0.0),
            # two clocks can't be read at the same moment, so less is no evidence
            ("the machine was suspended", _suspended_s() - self._suspended_s, LATE_S),
        )
        return [f"{what} for about {seconds:.1f} s" for what, seconds, least in held_up if seconds > least]


def _suspended_s() -> float:
    """Return for how long the machine was suspended since it started, in seconds."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()
