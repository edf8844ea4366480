"""The live view of a run in a terminal: running launches and their progress, launches done, failed and flagged.

A thread draws it into the last rows of the terminal. A scroll region keeps all other output above these rows, so jobs
write to the terminal as they do without a view. Launches that see `VIEW` print no lines of progress there.
"""

import contextlib
import os
import threading
import time
from collections import Counter
from pathlib import Path

from rollout_bench.cluster.ownership import under_way
from rollout_bench.contracts.store import read_launched
from rollout_bench.core.errors import UserError
from rollout_bench.measure.launch.progress import VIEW, rate
from rollout_bench.plan.schedule import RESULTS, Schedule

REDRAW_S = 0.5
"""Seconds between two drawings."""

SHOWN = 4
"""Maximum number of running launches that are shown."""


def can_redraw() -> bool:
    """Return whether stderr is a terminal with a scroll region and enough rows."""
    is_plain = os.environ.get("CI") or os.environ.get("TERM", "dumb") == "dumb"
    return os.isatty(2) and not is_plain and os.get_terminal_size(2).lines > 4 * SHOWN


class RunState:
    """The state of a run, as the claims, progress and records of its launches show it.

    Args:
        plan: the plan of the run, which has just begun.
    """

    def __init__(self, plan: Schedule) -> None:
        self._plan = plan
        self._planned = f"{'at most ' if plan.config.launches == 'auto' else ''}{len(plan.launches)}"
        self._counts = Counter(done=len(plan.launches) - len(plan.missing_now()))
        self._running: dict[str, tuple[str, float]] = {}  # record -> name with its number, and start
        self._began = time.monotonic()

    def look(self) -> tuple[list[str], list[str]]:
        """Return a line for each launch that has ended since the last call, and the lines of the view."""
        counts, by_record = self._counts, self._plan.by_record
        words = {str(RESULTS / record): word for record, word in under_way(RESULTS).items()}
        ended = [self._outcome(record, *self._running.pop(record)) for record in self._running.keys() - words.keys()]
        for record in sorted((words.keys() & by_record.keys()) - self._running.keys(), key=by_record.__getitem__):
            number = counts["done"] + counts["failed"] + len(self._running) + 1
            launch = by_record[record][1]
            self._running[record] = (
                f"launch {number} of {self._planned}{', in a block' if record in self._plan.interleaved else ''}: "
                f"{launch.experiment.spec.title} ({launch.experiment.spec.mode}), launch {launch.index}",
                time.monotonic(),
            )
        shown = list(self._running.items())[:SHOWN]
        return ended, [
            *(line for record, (name, began) in shown for line in (name, f"    {elapsed(began)}  {words[record]}")),
            f"{counts['done']} of {self._planned} launches done, {counts['failed']} failed, "
            f"{counts['flagged']} flagged; {elapsed(self._began)} elapsed",
        ]

    def _outcome(self, record: str, name: str, began: float) -> str:
        """Count a launch that has ended, and return its line."""
        if not Path(record).is_file():
            self._counts["failed"] += 1
            return f"{name}: failed after {elapsed(began)}"
        made = read_launched(Path(record), self._plan.by_record[record][1].experiment.spec.mode)
        flags = ", ".join(dict.fromkeys(flag.code for flag in made.validity))
        self._counts.update(done=1, flagged=int(bool(flags)))
        passes = [each for each in getattr(made, "iterations", []) if not each.warmup]
        per_s = sum(each.output_tokens for each in passes) / (sum(each.elapsed_s for each in passes) or 1.0)
        speed = f"{rate(per_s)} tok/s in " if passes else ""
        return f"{name}: {speed}{elapsed(began)}{f'; flags: {flags}' if flags else ''}"


def elapsed(since: float) -> str:
    """Return the time since a moment of the monotonic clock, as minutes:seconds."""
    return "{}:{:02d}".format(*divmod(int(time.monotonic() - since), 60))


def start_view(plan: Schedule) -> None:
    """Draw the view in the last rows of the terminal until the main thread ends."""
    os.environ[VIEW] = "1"
    threading.Thread(target=_draw, args=(RunState(plan),)).start()


def _draw(state: RunState) -> None:
    """Draw the view until the main thread ends, then erase it. Each write is one call, which no other write can split.

    The sequences are those of the VT100: `ESC D` moves the cursor down and scrolls at the end of the region, `ESC 7`
    and `ESC 8` keep its position, and `ESC [ first;last r` sets the region.
    """
    height = rows = 0
    try:
        # a damaged record, which its job reports, or a terminal that is gone
        with contextlib.suppress(UserError, OSError):
            while threading.main_thread().is_alive():
                threading.main_thread().join(REDRAW_S)
                ended, view = state.look()
                columns, now = os.get_terminal_size(2)
                view = ["-" * columns, *view][-(now // 2) :]
                height = height if now == rows else 0  # else the terminal was resized, and its region is gone
                more = max(len(view) - height, 0)
                height, rows = height + more, now
                space = "\x1bD" * more + f"\x1b[{more}A" if more else ""
                top = rows - height
                drawn = "".join(f"\x1b[{top + 1 + row}H\x1b[2K{line[:columns]}" for row, line in enumerate(view))
                above = "".join(f"{line}\n" for line in ended)
                os.write(2, f"{above}{space}\x1b7\x1b[1;{top}r{drawn}\x1b8".encode())
    finally:
        os.write(2, f"\x1b7\x1b[r\x1b[{rows - height + 1}H\x1b[J\x1b8".encode())
