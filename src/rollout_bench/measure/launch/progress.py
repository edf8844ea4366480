"""The progress of a launch: a file that the run reads, and lines where no run does."""

import contextlib
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from rollout_bench.contracts.modes import mode_of
from rollout_bench.contracts.progress import LaunchProgress, write_progress
from rollout_bench.contracts.record import Iteration
from rollout_bench.contracts.spec import Spec

QUIET_S = 10.0
"""Seconds after a line in which further iterations of its launch are not printed."""

VIEW = "ROLLOUT_BENCH_VIEW"
"""Variable that is set where the run itself shows the progress of its launches."""


@dataclass
class Progress:
    """Writes the progress of one launch to its file, and prints it if no run does.

    Args:
        spec: the spec of the launch.
        launch: index of the launch.
        record: path of its record.
    """

    spec: Spec
    launch: int
    record: Path
    _now: LaunchProgress = field(default_factory=lambda: LaunchProgress(text="begun"))
    _point: str = ""
    _loads: int = 0
    _first: int = 0
    _printed_at: float = -QUIET_S

    def __post_init__(self) -> None:
        measuring = self.spec.measuring
        if not mode_of(self.spec.mode).has_loads:
            passes = measuring.warmup_iterations + measuring.iterations
            self._now = self._now.model_copy(update={"passes": passes, "warmup": measuring.warmup_iterations})

    def iteration(self, done: Iteration) -> None:
        """Report an iteration; print the first ones of a load, then one of every `QUIET_S`."""
        point = "" if done.point is None else done.point.label
        if point != self._point:
            self._point, self._first = point, done.index
        place, warmup = done.index - self._first + 1, self.spec.measuring.warmup_iterations
        what = f"warm-up {place}/{warmup}"
        if not done.warmup:
            what = f"iteration {place - warmup}/{self.spec.measuring.iterations}"
        failed = f", {done.failed} of {done.requests} requests failed" if done.failed else ""
        failed += f", {done.incomplete} of {done.requests} cut" if done.incomplete else ""
        text = f"{self._load()}{what}, {rate(done.output_tokens / done.elapsed_s)} tok/s{failed}"
        self._now = self._now.model_copy(update={"done": self._now.done + 1, "pass_s": round(done.elapsed_s, 3)})
        is_due = place <= warmup + 1 or failed or time.monotonic() - self._printed_at > QUIET_S
        self._report(text, is_printed=bool(is_due))

    def phase(self, phase: str) -> None:
        """Report the beginning of a phase; each load of a sweep begins with one of its own."""
        first = "warmup" if self.spec.measuring.warmup_iterations else "measuring"
        self._loads += self.spec.load is not None and phase == first
        self.say(f"{self._load()}{phase}" if phase in ("warmup", "measuring") else phase)

    def _load(self) -> str:
        """Return the load that is sent now, and its number in a sweep, before a colon; empty without one."""
        every = [] if self.spec.load is None else self.spec.load.points
        begun = every[: self._loads]
        if not begun:
            return ""
        return f"{begun[-1].label}{f' (load {len(begun)} of {len(every)})' if len(every) > 1 else ''}: "

    def say(self, text: str) -> None:
        """Report `text` as the progress of the launch."""
        self._report(text, is_printed=True)

    def _report(self, text: str, *, is_printed: bool) -> None:
        self._now = self._now.model_copy(update={"text": text})
        write_progress(self.record, self._now)
        if is_printed and VIEW not in os.environ:
            say(f"{self.spec.title} ({self.spec.mode}), launch {self.launch}: {text}")
            self._printed_at = time.monotonic()


def say(line: str) -> None:
    """Print a line to stderr; a closed stderr is not an error."""
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def rate(per_second: float) -> str:
    """Return a rate with two to three digits: 87, 1.9k."""
    return f"{per_second:.0f}" if per_second < 1000 else f"{per_second / 1000:.1f}k"
