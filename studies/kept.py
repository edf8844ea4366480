"""What the validation keeps as JSON, shares with their intervals, and that one thing is measured at a time."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import filelock
import psutil
from scipy import special

from rollout_bench.contracts.fields import Strict
from rollout_bench.core.files import read_model, write_json
from rollout_bench.measure.machine.host import cpu_model, git_commit
from rollout_bench.plan.config import ComparisonSettings

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY / "tests" / "fixtures")]


RESULTS = REPOSITORY / "studies" / "results"

SETTINGS = ComparisonSettings()
"""How verdicts are made where nobody changes the config: what is validated."""

Result = TypeVar("Result", bound=Strict)


class Share(Strict):
    """How often something happened: `count` times in `of` >= 1 independent trials."""

    count: int
    of: int

    @property
    def value(self) -> float:
        """The share, between 0 and 1."""
        return self.count / self.of

    @property
    def interval(self) -> tuple[float, float]:
        """Its 95 % interval, never narrower than it says (Clopper and Pearson, Biometrika 26, 1934)."""
        count, missed = self.count, self.of - self.count
        low = special.betaincinv(count, missed + 1, 0.025) if count else 0.0
        high = special.betaincinv(count + 1, missed, 0.975) if missed else 1.0
        return float(low), float(high)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{100 * self.value:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


class Place(Strict):
    """Where something was measured."""

    processor: str
    cores: int
    memory_gib: int
    python: str
    packages: dict[str, str]
    commit: str
    load: float

    def __str__(self) -> str:
        packages = ", ".join(f"{name} {version}" for name, version in self.packages.items())
        return (
            f"{self.processor}, {self.cores} cores, {self.memory_gib} GiB of memory, Python {self.python}, {packages},"
            f" commit {self.commit}; load average before the start {self.load:.1f}"
        )


def this_place(*packages: str) -> Place:
    """Return this machine, the versions of `packages` and the commit that is checked out here."""
    digits, dash, dirty = (git_commit() or "unknown").partition("-")
    return Place(
        processor=cpu_model(),
        cores=len(os.sched_getaffinity(0)),
        memory_gib=round(psutil.virtual_memory().total / 2**30),
        python=platform.python_version(),
        packages={name: importlib.metadata.version(name) for name in packages},
        commit=f"{digits[:10]}{dash}{dirty}",
        load=round(os.getloadavg()[0], 2),
    )


def keep(name: str, result: Strict, folder: Path = RESULTS) -> Path:
    """Write `result` whole as `<name>.json` and return where."""
    path = folder / f"{name}.json"
    write_json(path, result)
    return path


def kept(name: str, kind: type[Result], folder: Path = RESULTS) -> Result | None:
    """Return the result of that name; None where it was not run. Raises `UserError` where the file is damaged."""
    path = folder / f"{name}.json"
    return read_model(path, kind, "delete it and run what makes it again") if path.exists() else None


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Hold the lock of all measurements of this machine: two at once would measure each other.

    Raises:
        SystemExit: another one is running.
    """
    lock = filelock.FileLock(Path(tempfile.gettempdir()) / "rollout-bench-validation.lock")
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        raise SystemExit(
            "another measurement of the validation is running on this machine\nwait until it ends"
        ) from None
    # As an exception it ends what was started, too; else that would go on measuring without the lock.
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        lock.release()
