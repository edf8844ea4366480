"""Call Snakemake so that it tells nothing but what went wrong; run as a program, in an interpreter of its own.

It imports nothing of rollout_bench: the Snakefile brings what belongs to its own clone, which may be another one than
that of this file.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import signal
import sys
from typing import NoReturn


def _end(*_: object) -> None:
    print("interrupted: nothing was started", file=sys.stderr, flush=True)
    os._exit(130)


if __name__ == "__main__":  # before Snakemake, whose import takes a second; the Snakefile ends it
    signal.signal(signal.SIGINT, _end)

from snakemake.cli import args_to_api, parse_args  # noqa: E402
from snakemake.common import NOTHING_TO_BE_DONE_MSG  # noqa: E402
from snakemake.exceptions import print_exception  # noqa: E402
from snakemake.logging import logger  # noqa: E402
from snakemake_interface_logger_plugins.common import LogEvent  # noqa: E402

SHOWN = (NOTHING_TO_BE_DONE_MSG, "Terminating processes on user request", "Will exit after finishing")
"""How messages begin that are shown though they are no warnings."""

SAID = (
    "CalledProcessError",
    "At least one job did not complete successfully",
    "Exiting because a job execution failed",
)
"""What errors have in them that repeat what the line for the failed job says, and the job itself before it."""


def is_shown(record: logging.LogRecord) -> bool:
    """Return whether a message of Snakemake's is shown; that of a job which failed becomes one line."""
    fields = record.__dict__
    if fields.get("event") == LogEvent.JOB_ERROR:
        logs = ", ".join(fields.get("log", ()))
        # without its event, so that neither Snakemake's words for it are added, nor a quiet profile hides it
        fields.update(event=None, msg=f"failed: rule {fields.get('rule_name')}" + (f" (log: {logs})" if logs else ""))
        return True
    message = str(record.msg)
    if record.levelno < logging.WARNING:
        return message.startswith(SHOWN)
    return not any(words in message for words in SAID)


def main() -> NoReturn:
    """Call Snakemake with the arguments of this program, and end with its exit status."""
    sys.argv[0] = "snakemake"
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):  # which profile it takes, it says before it knows of any quiet
            parser, arguments = parse_args(sys.argv[1:])
    except SystemExit:
        print(said.getvalue(), end="", file=sys.stderr)
        raise
    except Exception as error:
        print_exception(error)
        sys.exit(1)
    if not arguments.dryrun:  # what that prints is what it is called for
        logger.addFilter(is_shown)
    sys.exit(0 if args_to_api(arguments, parser) else 1)


if __name__ == "__main__":
    main()
