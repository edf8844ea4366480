"""The progress of a run: a live line in a terminal, and a line every ten seconds elsewhere.

A thread of the run prints it. Launches see `VIEW` and print no progress of their own. In a terminal a scroll region
keeps all other output above the live line, so jobs write to the terminal as they do without it.
"""

import contextlib
import os
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from rollout_bench.cluster.claims import running_launches
from rollout_bench.contracts.block_flags import judged_together
from rollout_bench.contracts.flags import FLAGS
from rollout_bench.contracts.progress import WAITING, LaunchProgress
from rollout_bench.contracts.record import Flag, Launched, codes_against
from rollout_bench.contracts.spec import Spec
from rollout_bench.contracts.store import failure_path, read_launched
from rollout_bench.core.errors import UserError
from rollout_bench.core.numbers import duration
from rollout_bench.measure.launch.progress import VIEW, rate, say
from rollout_bench.measure.launch.starter import can_fork
from rollout_bench.plan.durations import loads_s
from rollout_bench.plan.planfile import PLAN
from rollout_bench.plan.results_state import ResultsState
from rollout_bench.plan.schedule import RESULTS, ScheduledJob

REDRAW_S = 0.5
"""Seconds between two drawings."""

LINE_S = 10.0
"""Seconds between two lines where nothing can be redrawn."""

SHOWN = 4
"""Maximum number of running jobs that are shown."""


GONE = (
    "results/ was moved or removed during the run, and what is measured from now on goes into a new one\n"
    "  -> at the end copy the old one into it (cp -rn OLD/. results/), if it is still there; then run the same command "
    "again"
)

BAR = 20
"""Characters of the bar on a terminal."""


def can_redraw() -> bool:
    """Return whether stderr is a terminal with a scroll region and enough rows."""
    is_plain = os.environ.get("CI") or os.environ.get("TERM", "dumb") == "dumb"
    return os.isatty(2) and not is_plain and os.get_terminal_size(2).lines > 4 * SHOWN


@dataclass
class RunningJob:
    """A block or a single launch that is measured now, or several blocks whose engines start once.

    Attributes:
        job: the job.
        number: its number in the run, from 1.
        began: when it was first seen, on the monotonic clock.
        waited_s: how long it has waited for devices that others hold.
        importing_s: how long its first launch has imported the engine.
        launches: record -> progress of each launch that has begun.
    """

    job: ScheduledJob
    number: int
    began: float
    waited_s: float = 0.0
    importing_s: float = 0.0
    launches: dict[str, LaunchProgress] = field(default_factory=dict)
    _latest: LaunchProgress = field(default_factory=lambda: LaunchProgress(text="begun"))
    _seen_at: float | None = None
    _imported: bool = False
    _counting: tuple[float, int] | None = None  # when all had warmed up, and the passes done then

    def see(self, running: Mapping[str, LaunchProgress], now: float) -> None:
        """Take over the progress of its launches."""
        waits = any(progress.text.startswith(WAITING) for progress in running.values())
        self.waited_s += waits * (now - (self.began if self._seen_at is None else self._seen_at))
        self._seen_at = now
        for record, progress in running.items():
            if self.launches.get(record) != progress:
                self._latest = progress
            self.launches[record] = progress
        if not self._imported:
            self.importing_s = self.spent_s(now)
            texts = {progress.text for progress in self.launches.values()} - {"begun", "importing"}
            self._imported = any(not text.startswith(WAITING) for text in texts)
        if self._counting is None and all(p.passes and p.done > p.warmup for p in self._every()):
            self._counting = now, self._done()

    def spent_s(self, now: float) -> float:
        """Return the seconds since it began in which it did not wait for devices."""
        return now - self.began - self.waited_s

    def _every(self) -> list[LaunchProgress]:
        begun = list(self.launches.values())
        return begun + [LaunchProgress(text="begun")] * (len(self.job.launches) - len(begun))

    def _done(self) -> int:
        return sum(progress.done for progress in self._every())

    @property
    def has_passes_left(self) -> bool:
        """Whether one of its launches has not made all its passes, or does not count them."""
        return any(progress.passes is None or progress.done < progress.passes for progress in self._every())

    @property
    def all_begun(self) -> bool:
        """Whether each of its launches has made a pass."""
        return all(progress.done for progress in self._every())

    def left_s(self, now: float) -> float | None:
        """Return the seconds that its passes still take, by those that it has made; None before the first ones."""
        known = [progress for progress in self._every() if progress.pass_s and progress.passes]
        if not known:
            return None
        each = len(self.job.launches) / len(known)  # launches that have not begun are like those that have
        if self._counting is not None and (made := self._done() - self._counting[1]):
            left = sum((progress.passes or 0) - progress.done for progress in known)
            return each * left * (now - self._counting[0]) / made
        return each * sum(((p.passes or 0) - p.done) * (p.pass_s or 0.0) for p in known)

    def line(self, total: str) -> str:
        """Return its number of `total`, and its pass or phase."""
        first = self.job.first_spec
        if len(self.job.launches) == 1:
            return f"launch {self.number} of {total}: {first.title} ({first.mode}), {self._latest.text}"
        passes = [progress.done for progress in self._every()]
        most = max((progress.passes or 0) for progress in self._every())
        waits = (progress.text for progress in self._every() if progress.text.startswith(WAITING))
        where = f"pass {min(min(passes) + 1, most)} of {most}" if min(passes) else next(waits, self._latest.text)
        return f"block {self.number} of {total}, {where}"


class RunState:
    """The state of a run, as the claims, progress and records of its launches show it.

    Args:
        at_start: the results when the call started, whose records tell how long launches take, also those moved since.
        missing: the records that were missing when the run began.
    """

    def __init__(self, at_start: ResultsState, missing: Collection[str]) -> None:
        self._plan = plan = at_start.schedule
        self._results, self._path = at_start.folder, at_start.path
        self._expected_s_of = at_start.expected_s
        self._limit = "at most " if plan.config.launches == "auto" else ""
        self._began = time.monotonic()
        marks = set(plan.outputs_for(missing))
        self._to_do = {mark: job for mark, job in plan.jobs.items() if mark in marks}
        self._first = len(plan.jobs) - len(self._to_do)
        self._running: dict[str, RunningJob] = {}
        self._ended_jobs = 0
        self._took_s: dict[tuple[str, ...], float] = {}  # experiments of a job -> duration of the last such job
        self._failed = self._flagged = self._invalid = 0
        self._disturbed_by = ""  # the flag of the first launch that does not count since the machine was disturbed
        self._has_plan = (self._results / PLAN).is_file()
        self._is_gone = False

    def lines(self) -> tuple[list[str], list[str]]:
        """Return a line for each job that has ended since the last call, and the lines of the view."""
        now, running = time.monotonic(), dict[str, dict[str, LaunchProgress]]()
        for record, (progress, _) in running_launches(self._results).items():
            mark = self._plan.mark_of.get(str(RESULTS / record))
            if mark in self._to_do:
                running.setdefault(mark, {})[str(RESULTS / record)] = progress
        newly_gone = self._has_plan and not self._is_gone and not (self._results / PLAN).is_file()
        self._is_gone |= newly_gone
        was_told = bool(self._disturbed_by)
        ended = [GONE] * newly_gone + [self._ended(mark, now) for mark in [*self._running] if mark not in running]
        if self._disturbed_by and not was_told:
            kind = FLAGS[self._disturbed_by]
            ended.append(f"{kind.found}: such a launch is invalid, so it enters no number\n  -> {kind.remedy}")
        for mark, launches in running.items():
            if mark not in self._running:
                number = self._first + self._ended_jobs + len(self._running) + 1
                self._running[mark] = RunningJob(self._to_do[mark], number, now)
            self._running[mark].see(launches, now)
        total = f"{self._limit}{len(self._plan.jobs)}"
        shown = [job.line(total) for job in list(self._running.values())[:SHOWN]]
        left_s = self.left_s(now)
        time_left = f", {self._limit or 'about '}{duration(left_s)} left" if left_s else ""
        if left_s == 0 and any(job.has_passes_left for job in self._running.values()):
            time_left = ", longer than expected"  # a server is slower than the rates that it is asked
        counts = {"failed": self._failed, "invalid": self._invalid, "flagged": self._flagged}
        doubts = "".join(f"; {count} {what}" for what, count in counts.items() if count)
        spent_s = now - self._began
        bar = f"{progress_bar(spent_s / (spent_s + left_s))} " if left_s and can_redraw() else ""
        state = f"{bar}{elapsed(self._began)} elapsed{time_left}{doubts}"
        return ended, [*shown[:-1], f"{shown[-1]}; {state}"] if shown else [state]

    def _ended(self, mark: str, now: float) -> str:
        """Count a job that has ended, and return its line."""
        running, job = self._running.pop(mark), self._to_do.pop(mark)
        self._ended_jobs += 1
        self._took_s[_kind(job)] = running.spent_s(now) - (running.importing_s if _forks(job) else 0.0)
        modes = {record: self._plan.by_record[record][1].experiment.spec.mode for record in _names(job)}
        there = {record: mode for record, mode in modes.items() if self._path(record).is_file()}
        made = {record: read_launched(self._path(record), mode) for record, mode in there.items()}
        flags = dict(zip(made, judged_together([*made.values()]), strict=True))
        results = ", ".join(
            f"{name} {self._of_record(made[record], flags[record]) if record in made else self._of_none(record)}"
            for record, name in _names(job).items()
        )
        what = "block" if len(job.launches) > 1 else "launch"
        took = elapsed(running.began)
        took += f", of which {clock(running.waited_s)} waiting for devices" if running.waited_s >= 1 else ""
        return f"{what} {running.number} of {self._limit}{len(self._plan.jobs)}: {results}, {took}"

    def _of_none(self, record: str) -> str:
        """Count a launch that has ended without a record, and return how it ended."""
        has_failed = failure_path(self._path(record)).is_file()  # else it was interrupted
        self._failed += has_failed
        return "failed" if has_failed else "unknown" if self._is_gone else "not measured"

    def _of_record(self, made: Launched, validity: Sequence[Flag]) -> str:
        """Count a launch that is measured, and return its speed and flags."""
        flags = ", ".join(dict.fromkeys(flag.code for flag in validity))
        if invalid := codes_against(validity):
            self._invalid += 1
            flags = f"invalid: {flags}"
            self._disturbed_by = self._disturbed_by or next((code for code in invalid if FLAGS[code].disturbs), "")
        else:
            self._flagged += bool(flags)
        passes = [each for each in getattr(made, "iterations", []) if not each.warmup]
        per_s = sum(each.output_tokens for each in passes) / (sum(each.elapsed_s for each in passes) or 1.0)
        return (f"{rate(per_s)} tok/s" if passes else "done") + (f" ({flags})" if flags else "")

    def left_s(self, now: float) -> float | None:
        """Return the seconds until all launches are measured, None before anything is known.

        A job takes as long as the last one of the same experiments, else as launches of earlier runs, else as the loads
        that a server gets, else as those that are measured now without the import, which the first job makes for all
        where engines are forked.
        """
        running = self._running
        left_of_jobs = {mark: self._left_of(job, now) for mark, job in running.items()}
        known = {mark: left for mark, left in left_of_jobs.items() if left is not None}
        each = [
            running[mark].spent_s(now) + left - (running[mark].importing_s if _forks(running[mark].job) else 0.0)
            for mark, left in known.items()
        ]
        like_s = fmean(each) if each else fmean(self._took_s.values()) if self._took_s else None
        later = [self._expected_s(job) or like_s for mark, job in self._to_do.items() if mark not in running]
        if len(known) < len(running) or None in later or not running:
            return None
        return max(known.values()) + sum(seconds or 0.0 for seconds in later) / len(running)

    def _left_of(self, running: RunningJob, now: float) -> float | None:
        left_s, took_s = running.left_s(now), self._expected_s(running.job)
        if (left_s is not None and running.all_begun) or took_s is None:
            return left_s
        return max(took_s - running.spent_s(now), left_s or 0.0)

    def _expected_s(self, job: ScheduledJob) -> float | None:
        if (took_s := self._took_s.get(_kind(job))) is not None:
            return took_s
        expected = [self._expected_s_of(one) or _loads_s(one.experiment.spec) for one in job.launches]
        return None if None in expected else sum(seconds or 0.0 for seconds in expected)


def _loads_s(spec: Spec) -> float | None:
    """Return the seconds of the loads of a server that is up; None for others, whose engines start first."""
    return (loads_s(spec) or None) if spec.endpoint is not None else None


def _names(job: ScheduledJob) -> dict[str, str]:
    """Return record -> name of each launch of a job: what it does not share with the others, or the whole title."""
    specs = {launch.record: launch.experiment.spec for launch in job.launches}
    axes = {axis for spec in specs.values() for axis, name in spec.axes.items() if name != job.first_spec.axes[axis]}
    return {
        record: " ".join(name for axis, name in spec.axes.items() if axis in axes) or spec.title
        for record, spec in specs.items()
    }


def _kind(job: ScheduledJob) -> tuple[str, ...]:
    return tuple(sorted(launch.experiment.name for launch in job.launches))


def _forks(job: ScheduledJob) -> bool:
    return all(can_fork(launch.experiment.spec) for launch in job.launches)


def elapsed(since: float) -> str:
    """Return the time since a moment of the monotonic clock, as minutes:seconds."""
    return clock(time.monotonic() - since)


def clock(seconds: float) -> str:
    """Return a duration as minutes:seconds."""
    return "{}:{:02d}".format(*divmod(int(seconds), 60))


def progress_bar(share: float) -> str:
    """Return a bar of which `share` is full."""
    full = round(BAR * share)
    return "━" * full + "─" * (BAR - full)


def start_view(at_start: ResultsState, missing: Collection[str]) -> None:
    """Print the progress of the run until the main thread ends; the arguments are those of `RunState`."""
    os.environ[VIEW] = "1"
    threading.Thread(target=_draw if can_redraw() else _print, args=(RunState(at_start, missing),)).start()


def _print(state: RunState) -> None:
    """Print a line for each job that has ended, and the state of the run every `LINE_S`."""
    printed_at = time.monotonic()
    with contextlib.suppress(UserError, OSError):  # as in _draw
        while threading.main_thread().is_alive():
            threading.main_thread().join(REDRAW_S)
            ended, lines = state.lines()
            is_due = time.monotonic() - printed_at >= LINE_S
            for line in (*ended, *(lines if is_due else ())):
                say(line)
            if is_due or ended:
                printed_at = time.monotonic()


def _draw(state: RunState) -> None:
    """Draw the live line until the main thread ends, then erase it. Each write is one call, which no other can split.

    The sequences are those of the VT100: `ESC D` moves the cursor down and scrolls at the end of the region, `ESC 7`
    and `ESC 8` keep its position, and `ESC [ first;last r` sets the region.
    """
    height = rows = 0
    try:
        # a damaged record, which its job reports, or a terminal that is gone
        with contextlib.suppress(UserError, OSError):
            while threading.main_thread().is_alive():
                threading.main_thread().join(REDRAW_S)
                ended, view = state.lines()
                columns, now = os.get_terminal_size(2)
                height = height if now == rows else 0  # else the terminal was resized, and its region is gone
                more = max(len(view) - height, 0)
                height, rows = height + more, now
                space = "\x1bD" * more + f"\x1b[{more}A" if more else ""
                top = rows - height
                lines = [*view, *[""] * (height - len(view))]
                drawn = "".join(f"\x1b[{top + 1 + row}H\x1b[2K{line[:columns]}" for row, line in enumerate(lines))
                above = "".join(f"{line}\n" for line in ended)
                os.write(2, f"{above}{space}\x1b7\x1b[1;{top}r{drawn}\x1b8".encode())
    finally:
        os.write(2, f"\x1b7\x1b[r\x1b[{rows - height + 1}H\x1b[J\x1b8".encode())
