"""Handling of Ctrl-C. Before a measurement it prints one line and no traceback."""

import os
import signal
import sys
from types import FrameType

INTERRUPTED = 130
"""Exit status of a command that Ctrl-C ended, as in shells."""


_seen: list[int] = []


def end_on_interrupt() -> None:
    """End this process immediately on Ctrl-C, until `heed_interrupts` is called."""
    signal.signal(signal.SIGINT, _end)


def heed_interrupts() -> None:
    """Raise `KeyboardInterrupt` on the next Ctrl-C, so that running work can clean up.

    Further ones do nothing: they would interrupt the cleaning up, and Snakemake prints a traceback on them.
    """
    signal.signal(signal.SIGINT, _raise)


def end_as_interrupted() -> None:
    """Exit with `INTERRUPTED` if Ctrl-C has raised `KeyboardInterrupt` since `heed_interrupts`."""
    if _seen:
        sys.exit(INTERRUPTED)


def _raise(number: int, frame: FrameType | None) -> None:
    if not _seen:
        _seen.append(number)
        signal.default_int_handler(number, frame)


def _end(*_: object) -> None:
    print("interrupted: nothing was started", file=sys.stderr, flush=True)
    os._exit(INTERRUPTED)  # Snakemake would print a traceback
