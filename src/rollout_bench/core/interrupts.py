"""Handling of Ctrl-C and SIGTERM. Before a measurement it prints one line and no traceback."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from types import FrameType

INTERRUPTED = 130
"""Exit status of a command that Ctrl-C ended, as in shells."""


TERMINATED = 128 + signal.SIGTERM
"""Exit status of a command that SIGTERM ended, as in shells."""

_seen: list[int] = []
"""The signal that ended the run, if one did."""


def end_on_interrupt() -> None:
    """End this process immediately on Ctrl-C, until `heed_interrupts` is called."""
    signal.signal(signal.SIGINT, _end)


def heed_interrupts() -> None:
    """Raise `KeyboardInterrupt` on the next Ctrl-C, so that running work can clean up.

    Further ones do nothing: they would interrupt the cleaning up, and Snakemake prints a traceback on them. On SIGTERM,
    Snakemake's own handler starts no further job; the run then ends with `TERMINATED`.
    """
    signal.signal(signal.SIGINT, _raise)
    starts_no_more = signal.getsignal(signal.SIGTERM)

    def note(number: int, frame: FrameType | None) -> None:
        if not _seen:
            _seen.append(number)
            # not print: the signal may have come amid one
            os.write(2, b"SIGTERM: no further launch is started; one that has begun may finish (Ctrl-C ends it)\n")
        if callable(starts_no_more):
            starts_no_more(number, frame)

    if callable(starts_no_more):
        signal.signal(signal.SIGTERM, note)


def was_interrupted() -> bool:
    """Return whether Ctrl-C or SIGTERM has ended the run since `heed_interrupts`."""
    return bool(_seen)


def end_as_interrupted() -> None:
    """Exit with `INTERRUPTED` or `TERMINATED` if Ctrl-C or SIGTERM has ended the run since `heed_interrupts`."""
    if _seen:
        sys.exit(128 + _seen[0])


def status_of(command: Sequence[str], env: Mapping[str, str] | None = None) -> int:
    """Run a command that heeds Ctrl-C itself, and return its exit status.

    `subprocess.run` kills what it runs a quarter of a second after Ctrl-C, before a run has written its summary.
    """
    before = signal.signal(signal.SIGINT, lambda *_: None)  # not ignored, which the command would inherit
    try:
        return subprocess.Popen(command, env=env).wait()
    finally:
        signal.signal(signal.SIGINT, before)


def _raise(number: int, frame: FrameType | None) -> None:
    if not _seen:
        _seen.append(number)
        signal.default_int_handler(number, frame)


def _end(*_: object) -> None:
    print("interrupted: nothing was started", file=sys.stderr, flush=True)
    os._exit(INTERRUPTED)  # Snakemake would print a traceback
