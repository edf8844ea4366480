"""Runs a command and looks on: what its own process takes, what all that it starts take, and how far it is."""

from __future__ import annotations

import resource
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import psutil
from timing import Command

LOOK_S = 0.2


@dataclass(frozen=True)
class Moment:
    """How far a command was: seconds since its start, what was done, processor seconds of its own process alone."""

    at_s: float
    done: int
    own_s: float


@dataclass
class Watched:
    """What a command took.

    Attributes:
        wall_s: on the wall clock.
        processor_s: of processors, user and system, with all that it started and waited for.
        own_s: the same of its own process alone.
        peak_bytes: most memory of its own process.
        threads: most threads of its own process.
        moments: how far it was, whenever more was done.
    """

    wall_s: float = 0.0
    processor_s: float = 0.0
    own_s: float = 0.0
    peak_bytes: int = 0
    threads: int = 0
    moments: list[Moment] = field(default_factory=list)

    def part(self, number: int, parts: int) -> tuple[float, float]:
        """Of the `number`-th of equal parts of what was done: wall seconds, processor seconds of its own process."""
        total = self.moments[-1].done
        (begin_s, begin_own_s), (end_s, end_own_s) = (
            self._reached(total * edge / parts) for edge in (number, number + 1)
        )
        return end_s - begin_s, end_own_s - begin_own_s

    def _reached(self, done: float) -> tuple[float, float]:
        """Return seconds until so much was done, and of its own process until then: on a line between two moments."""
        counts = [moment.done for moment in self.moments]
        return (
            float(np.interp(done, counts, [moment.at_s for moment in self.moments])),
            float(np.interp(done, counts, [moment.own_s for moment in self.moments])),
        )


def watch(command: Command, done: Callable[[], int] = lambda: 0, every_s: float = 5.0) -> Watched:
    """Run `command`, asking `done` for how much is done every so many seconds.

    Raises:
        SystemExit: it fails or its output lacks what is expected.
    """
    found = Watched()
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with tempfile.TemporaryFile("w+") as output:
        process = psutil.Popen(
            list(command.arguments),
            cwd=command.folder,
            env=dict(command.environment),
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
        )
        asked_s = 0.0
        while process.poll() is None:
            _look(process, found)
            if (now_s := time.perf_counter() - began) >= asked_s:
                asked_s = now_s + every_s
                _note(found, now_s, done())
            time.sleep(LOOK_S)
        found.wall_s, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        _note(found, found.wall_s, done())
        output.seek(0)
        text = output.read()
    found.processor_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if process.returncode != 0 or command.expected not in " ".join(text.split()):
        raise SystemExit(
            f"{' '.join(command.arguments)}: ended with status {process.returncode}, without saying"
            f" {command.expected!r}:\n{text[-2000:]}"
        )
    return found


def _note(found: Watched, at_s: float, done: int) -> None:
    if not found.moments or done > found.moments[-1].done:
        found.moments.append(Moment(at_s, done, found.own_s))


def _look(process: psutil.Popen, found: Watched) -> None:
    try:
        times = process.cpu_times()
        found.own_s = times.user + times.system
        found.peak_bytes = max(found.peak_bytes, process.memory_info().rss)
        found.threads = max(found.threads, process.num_threads())
    except psutil.Error:
        return
