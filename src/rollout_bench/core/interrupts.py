"""Ctrl-C before anything is measured: one line, no traceback."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

INTERRUPTED = 130
"""Exit status of a command that Ctrl-C ended, as shells have it."""


_seen: list[int] = []


def end_on_interrupt() -> None:
    """From now on end this process on Ctrl-C, wherever it is; `heed_interrupts` ends that."""
    signal.signal(signal.SIGINT, _end)


def heed_interrupts() -> None:
    """From now on raise `KeyboardInterrupt` on Ctrl-C, as Python does: what runs has something to end."""
    signal.signal(signal.SIGINT, _raise)


def end_as_interrupted() -> None:
    """End with `INTERRUPTED` where Ctrl-C has raised since `heed_interrupts`."""
    if _seen:
        sys.exit(INTERRUPTED)


def _raise(number: int, frame: FrameType | None) -> None:
    _seen.append(number)
    signal.default_int_handler(number, frame)


def _end(*_: object) -> None:
    print("interrupted: nothing was started", file=sys.stderr, flush=True)
    os._exit(INTERRUPTED)  # Snakemake would print where it was
