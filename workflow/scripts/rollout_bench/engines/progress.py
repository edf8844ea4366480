"""One line per phase and iteration: what runs, what is left, about how long."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from rollout_bench.plan.spec import Spec
from rollout_bench.records.profile import Step
from rollout_bench.records.record import Iteration
from rollout_bench.records.store import failure_path


@dataclass(frozen=True)
class Planned:
    """A launch of the plan: where its record will lie and how many seconds it is expected to take."""

    record: Path
    expected_s: float


@dataclass
class Progress:
    """Prints the progress of one launch to stderr.

    Args:
        spec: what is measured.
        launch: index of the launch.
        record: where its record will lie.
        plan: file with all launches, `{"launches": [{"record": path, "expected_s": seconds}, ...]}`; None: no totals.
    """

    spec: Spec
    launch: int
    record: Path
    plan: Path | None
    _began: float = field(default_factory=time.monotonic)
    _durations: list[float] = field(default_factory=list)
    _warmup: int = 0
    _point: str = ""
    _first: int = 0

    def __post_init__(self) -> None:
        self._warmup = self.spec.measuring.warmup_iterations

    def phase(self, name: str) -> None:
        """Says that the launch came to a new phase."""
        self._say(name)

    def iteration(self, done: Iteration) -> None:
        """Says that an iteration is over."""
        self._durations.append(done.elapsed_s)
        point = "" if done.point is None else done.point.label
        if point != self._point:
            self._point, self._first, self._warmup = point, done.index, self.spec.measuring.warmup_iterations
        number = done.index - self._first + 1
        what = f"warm-up {number}/{self._warmup}"
        if not done.warmup:
            what = f"iteration {number - self._warmup}/{self.spec.measuring.iterations}"
        failed = f", {done.failed} of {done.requests} requests failed" if done.failed else ""
        self._say(f"{f'{point}: ' if point else ''}{what}, {rate(done.output_tokens / done.elapsed_s)} tok/s{failed}")

    def steps(self, done: Sequence[Step]) -> None:
        """Says that a window of steps is over."""
        if not done:
            return
        mean_s = fmean(step.elapsed_s for step in done)
        how = ", traced" if done[0].profiled else ""
        self._say(f"{len(done)} {done[0].phase} steps of {1000 * mean_s:.3g} ms{how}")

    def round(self, number: int) -> None:
        """Says that a round of a sweep is over, the `number`-th from 0, and about how many are left."""
        settings = self.spec.operators
        assert settings is not None, "rounds are of operators mode"
        warmup = settings.warmup_rounds
        what = f"warm-up round {number + 1}/{warmup}"
        counted = number + 1 - warmup
        self._say(what if number < warmup else f"round {counted}/{max(counted, settings.repeats)}")

    def warmup_extended(self, more: int) -> None:
        """Says that so many of the iterations that counted were warm-up after all."""
        self._warmup += more
        self._say(f"warm-up was too short, {more} more to run")

    def _say(self, what: str) -> None:
        spec = self.spec
        place, left = self._place_and_left()
        name = f"{spec.model.name} {spec.quant.name} {spec.workload.name} launch {self.launch}"
        say(f"{place}{name}: {what}{left}")

    def _place_and_left(self) -> tuple[str, str]:
        launches = read_plan(self.plan)
        own = next((planned for planned in launches if planned.record == self.record), None)
        expected_s = own.expected_s if own is not None else None
        own_left_s = self._own_left_s(expected_s)
        if own is None or self.plan is None:
            return "", f"; about {duration(own_left_s)} left" if own_left_s else ""
        since = self.plan.stat().st_mtime if self.plan.exists() else 0.0
        missing = [p for p in launches if p is not own and not p.record.exists() and not _failed_since(p.record, since)]
        done = len(launches) - len(missing)
        limit = "at most " if _ends_by_precision(self.plan) else ""
        place = f"[{done}/{limit}{len(launches)}] "
        elapsed_s = time.monotonic() - self._began
        scale = (elapsed_s + own_left_s) / own.expected_s if own_left_s is not None and self._durations else 1.0
        left_s = (own_left_s or 0.0) + min(max(scale, 0.2), 5.0) * sum(p.expected_s for p in missing)
        return place, f"; {limit or 'about '}{duration(left_s)} left" if left_s > 0 else ""

    def _own_left_s(self, expected_s: float | None) -> float | None:
        """Seconds that this launch has left; None while neither it nor the plan says."""
        if self._durations and self.spec.load is None:
            total = self._warmup + self.spec.measuring.iterations
            return (total - len(self._durations)) * self._durations[-1]
        if expected_s is None:
            return None
        return max(expected_s - (time.monotonic() - self._began), 0.0)


def read_plan(path: Path | None) -> list[Planned]:
    """The launches of the plan file; none if it is missing or is none."""
    if path is None:
        return []
    try:
        launches = json.loads(path.read_bytes())["launches"]
        return [Planned(Path(entry["record"]), max(float(entry["expected_s"]), 0.1)) for entry in launches]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _ends_by_precision(path: Path) -> bool:
    """True when the launches of the plan file are those that there may be, and fewer may turn out to be enough."""
    try:
        return json.loads(path.read_bytes()).get("precision") is not None
    except (OSError, ValueError, AttributeError):
        return False


def say(line: str) -> None:
    """Prints a line to stderr; nobody listening any more is no error."""
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def rate(per_second: float) -> str:
    """A rate with two to three digits: 87, 1.9k."""
    return f"{per_second:.0f}" if per_second < 1000 else f"{per_second / 1000:.1f}k"


def duration(seconds: float) -> str:
    """A duration for people: 40 s, 2 min, 3.5 h."""
    if seconds < 90:
        return f"{max(10 * round(seconds / 10), 10 if seconds > 1 else 0)} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _failed_since(record: Path, since: float) -> bool:
    try:
        return failure_path(record).stat().st_mtime > since
    except (OSError, ValueError):
        return False
