"""Lines of progress for phases and iterations: current work, remaining launches, estimated time."""

import contextlib
import json
import os
import sys
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from rollout_bench.contracts.modes import mode_of
from rollout_bench.contracts.record import Iteration
from rollout_bench.contracts.spec import Spec
from rollout_bench.contracts.store import failure_path, present, word_path

QUIET_S = 10.0
"""Seconds after a line in which further iterations of its launch are not printed."""

VIEW = "ROLLOUT_BENCH_VIEW"
"""Variable that is set if a live view shows the progress in the terminal, in place of lines."""


@dataclass(frozen=True)
class Place:
    """Position of a launch in its plan.

    Attributes:
        launches: number of launches in the plan.
        missing: number of launches without record or failure in this run, without this launch.
        known: whether the plan has an expected time for each launch; if not, each second below counts one launch.
        expected_s: expected time of this launch, including the launches in its block.
        others_s: expected time of all other missing launches.
        ends_by_precision: whether fewer launches than planned may be enough.
    """

    launches: int
    missing: int
    known: bool
    expected_s: float
    others_s: float
    ends_by_precision: bool


@dataclass
class Progress:
    """Prints the progress of one launch to stderr.

    Args:
        spec: the spec of the launch.
        launch: index of the launch.
        record: path of its record.
        plan: file with all launches, `{"launches": [{"record": path, "expected_s": seconds or null}, ...]}`; None
            prints no totals.
        mates: records of the launches in the same block, each expected to take as long as this launch.
        began: start time of the launch or its block, on the monotonic clock.
    """

    spec: Spec
    launch: int
    record: Path
    plan: Path | None
    mates: frozenset[Path] = frozenset()
    began: float = field(default_factory=time.monotonic)
    _durations: list[float] = field(default_factory=list)
    _point: str = ""
    _first: int = 0
    _said_at: float = -QUIET_S

    def iteration(self, done: Iteration) -> None:
        """Print the result of the first iterations of a load, then one of every `QUIET_S`."""
        self._durations.append(done.elapsed_s)
        point = "" if done.point is None else done.point.label
        if point != self._point:
            self._point, self._first = point, done.index
        place, warmup = done.index - self._first + 1, self.spec.measuring.warmup_iterations
        what = f"warm-up {place}/{warmup}"
        if not done.warmup:
            what = f"iteration {place - warmup}/{self.spec.measuring.iterations}"
        failed = f", {done.failed} of {done.requests} requests failed" if done.failed else ""
        failed += f", {done.incomplete} of {done.requests} cut" if done.incomplete else ""
        told = f"{f'{point}: ' if point else ''}{what}, {rate(done.output_tokens / done.elapsed_s)} tok/s{failed}"
        if place <= warmup + 1 or failed or time.monotonic() - self._said_at > QUIET_S:
            self.say(told)
        else:
            leave_word(self.record, told + self._place_and_left()[1])

    def say(self, what: str) -> None:
        """Print `what` as the progress of the launch."""
        spec = self.spec
        place, left = self._place_and_left()
        name = f"{spec.title} ({spec.mode}), launch {self.launch}"
        if VIEW not in os.environ or not os.isatty(2):  # jobs of a cluster have the variable, but no terminal
            say(f"{place}{name}: {what}{left}")
        self._said_at = time.monotonic()
        leave_word(self.record, f"{what}{left}")

    def _place_and_left(self) -> tuple[str, str]:
        place = self._place
        own_left_s = self._own_left_s(place.expected_s if place and place.known else None)
        if place is None:
            return "", f"; about {duration(own_left_s)} left" if own_left_s else ""
        limit = "at most " if place.ends_by_precision else ""
        shown = f"[{place.launches - place.missing}/{limit}{place.launches}] "
        if own_left_s is None and not place.known:
            return shown, ""
        elapsed_s = time.monotonic() - self.began
        scale = (elapsed_s + own_left_s) / place.expected_s if own_left_s is not None and self._durations else 1.0
        left_s = (own_left_s or 0.0) + (min(max(scale, 0.2), 5.0) if place.known else scale) * place.others_s
        return shown, f"; {limit or 'about '}{duration(left_s)} left" if left_s > 0 else ""

    @cached_property
    def _place(self) -> Place | None:
        """Position in the plan, computed once: a plan may have 100,000 launches, and this runs beside the engine."""
        return None if self.plan is None else place_in_plan(self.plan, self.record, self.mates)

    def _own_left_s(self, expected_s: float | None) -> float | None:
        """Return the estimated remaining seconds of this launch; None without finished passes or an expected time."""
        if self._durations and not mode_of(self.spec.mode).has_loads:
            total = self.spec.measuring.warmup_iterations + self.spec.measuring.iterations
            return (total - len(self._durations)) * self._durations[-1] * (1 + len(self.mates))
        if expected_s is None:
            return None
        return max(expected_s - (time.monotonic() - self.began), 0.0)


def place_in_plan(plan: Path, record: Path, mates: Collection[Path] = ()) -> Place | None:
    """Return the position of the launch that writes `record` in the plan file; `mates` are records of its block.

    Return None if the plan is missing, malformed or does not contain the launch.
    """
    try:
        since = plan.stat().st_mtime
        content = json.loads(plan.read_bytes())
        seconds = {entry["record"]: entry["expected_s"] for entry in content["launches"]}
        expected = {path: 1.0 if s is None else max(float(s), 0.1) for path, s in seconds.items()}
        own_s = expected[str(record)]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    missing = expected.keys() - present(expected) - {str(record)}
    beside = missing & {str(mate) for mate in mates}
    if failure_path(record).parents[2].is_dir():
        missing = {path for path in missing if not _failed_since(Path(path), since)}
    return Place(
        launches=len(expected),
        missing=len(missing),
        known=None not in seconds.values(),
        expected_s=own_s + sum(expected[path] for path in beside),
        others_s=sum(expected[path] for path in missing - beside),
        ends_by_precision=content.get("precision") is not None,
    )


def say(line: str) -> None:
    """Print a line to stderr; a closed stderr is not an error."""
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def leave_word(record: Path, what: str) -> None:
    """Write the progress of the launch that writes `record` to a file beside its claim, for other processes.

    Without a claim, nothing is written.
    """
    path = word_path(record)
    with contextlib.suppress(OSError):  # no result depends on it
        if path.parent.is_dir():
            path.write_text(f"{what}\n")


def rate(per_second: float) -> str:
    """Return a rate with two to three digits: 87, 1.9k."""
    return f"{per_second:.0f}" if per_second < 1000 else f"{per_second / 1000:.1f}k"


def duration(seconds: float) -> str:
    """Return a duration for people: 40 s, 2 min, 3.5 h."""
    if seconds < 90:
        return f"{max(10 * round(seconds / 10), 10 if seconds > 1 else 0)} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _failed_since(record: Path, since: float) -> bool:
    try:
        return failure_path(record).stat().st_mtime > since
    except (OSError, ValueError):
        return False
