"""Measure RL rollouts with vLLM: run the workflow, print its plan, check the machine, compare results.

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
    "run": ("workflow.run", "measure missing launches, then write summary and figures"),
    "plan": ("workflow.plan", "print launches done, under way and missing, skipped combinations, and the time left"),
    "check": ("workflow.check", "print the facts for a bug report, and a fix for each problem"),
    "summarise": ("summarise.main", "make the summary of a results folder, also of a copy"),
    "show": ("show.main", "print the answer of a results folder again, or any of its tables"),
    "compare": ("compare.main", "compare two results folders"),
    "discard": ("discard.main", "move doubtful records aside, to measure them again"),
    "export": ("export.main", "write results as llm-d's Benchmark Reports"),
    "collect": ("collect.main", "copy records from a cluster's volume into the local results"),
    "from-verl": ("trainers.from_verl", "make a config from verl's settings"),
    "from-trl": ("trainers.from_trl", "make a config from TRL's settings"),
    "trace": ("traces.main", "read the traces of a profile launch into one table of events"),
}
"""Sub-command -> function in a module of `rollout_bench.commands` (imported when the command runs), and purpose."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options before a sub-command."""
    parser = argparse.ArgumentParser(prog=NAME, description=__doc__)
    parser.add_argument("--version", action="version", version=f"{NAME} {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, (_, purpose) in COMMANDS.items():
        commands.add_parser(name, help=purpose, add_help=False)
    return parser


def dispatch() -> int:
    """Run the sub-command of the command line; return its exit status.

    Raises:
        UserError: if the sub-command is unknown or fails.
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
