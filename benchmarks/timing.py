"""Times commands, those that are compared taking turns."""

from __future__ import annotations

import resource
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Command:
    """A command line, where it runs, and words that its output must hold, or it did something else."""

    arguments: Sequence[str]
    folder: Path
    environment: Mapping[str, str]
    expected: str


@dataclass
class Times:
    """Seconds of each run: on the wall clock, and of processors (user and system)."""

    wall_s: list[float] = field(default_factory=list)
    processor_s: list[float] = field(default_factory=list)

    @property
    def median_s(self) -> float:
        """Median on the wall clock."""
        return statistics.median(self.wall_s)

    @property
    def median_processor_s(self) -> float:
        """Median of processor time."""
        return statistics.median(self.processor_s)

    @property
    def spread(self) -> str:
        """`median s (min to max)` on the wall clock."""
        return f"{self.median_s:.2f} s ({min(self.wall_s):.2f} to {max(self.wall_s):.2f})"


def take_turns(commands: Sequence[Command], runs: int) -> list[Times]:
    """Run all commands, then all again, `runs` times over: a machine that drifts hits all alike.

    Raises:
        SystemExit: a command fails or its output lacks what is expected; a time would mean nothing.
    """
    times = [Times() for _ in commands]
    for _ in range(runs):
        for command, into in zip(commands, times, strict=True):
            wall_s, processor_s = run(command)
            into.wall_s.append(wall_s)
            into.processor_s.append(processor_s)
    return times


def run(command: Command) -> tuple[float, float]:
    """Return seconds on the wall clock and of processors that one run takes; raise as `take_turns`."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        list(command.arguments),
        cwd=command.folder,
        env=dict(command.environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    wall_s, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0 or command.expected not in " ".join(done.stdout.split()):
        raise SystemExit(
            f"{' '.join(command.arguments)}: ended with status {done.returncode}, without saying"
            f" {command.expected!r}:\n{done.stdout[-2000:]}"
        )
    return wall_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
