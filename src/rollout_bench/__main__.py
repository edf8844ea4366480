"""Measure, and look at what is planned, what was measured and what is possible.

`rollout-bench COMMAND --help` lists the options of a command.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from importlib import import_module

from rollout_bench import __version__
from rollout_bench.core.errors import UserError, did_you_mean, run_command

NAME = "rollout-bench"

COMMANDS = {
    "run": ("workflow.run", "measure what is missing, then write summary and figures"),
    "plan": ("workflow.plan", "print what is done, under way, missing or skipped, and the time left"),
    "check": ("workflow.check", "print what a bug report needs, and for each problem its fix"),
    "summarise": ("summarise.main", "make the tables of a results folder, wherever it was copied"),
    "compare": ("compare.main", "compare two results folders"),
    "discard": ("discard.main", "move records that are in doubt aside, to measure them again"),
    "export": ("export.main", "write results as llm-d's Benchmark Reports"),
    "collect": ("collect.main", "bring records home from where they were measured"),
    "from-verl": ("trainers.from_verl", "make a config of the rollout that verl's settings describe"),
    "from-trl": ("trainers.from_trl", "make a config of the rollout that TRL's settings describe"),
    "trace": ("traces.main", "read the traces of a profile launch into one table of events"),
}
"""Sub-command -> its function in a module of `rollout_bench.commands`, imported only when it is run; what it does."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of all that stands before a sub-command's own arguments."""
    parser = argparse.ArgumentParser(prog=NAME, description=__doc__)
    parser.add_argument("--version", action="version", version=f"{NAME} {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, (_, purpose) in COMMANDS.items():
        commands.add_parser(name, help=purpose, add_help=False)
    return parser


def dispatch() -> int:
    """Run the sub-command that the command line names, as if it were a program; return its exit status.

    Raises:
        UserError: there is no such sub-command, or the sub-command fails.
    """
    word, *rest = sys.argv[1:] or ["--help"]
    if word.startswith("-"):
        parser().parse_args([word])
    if word not in COMMANDS:
        raise UserError(f"there is no command {word!r}", did_you_mean(word, COMMANDS))
    sys.argv = [f"{NAME} {word}", *rest]
    module, _, function = COMMANDS[word][0].partition(".")
    run: Callable[[], int] = getattr(import_module(f"rollout_bench.commands.{module}"), function)
    return run()


def main() -> None:
    """Run the command and end with its exit status."""
    run_command(dispatch)


if __name__ == "__main__":
    main()
