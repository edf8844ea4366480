"""Measure RL rollouts with vLLM: run the workflow, print its plan, check the machine, compare results.

`rollout-bench COMMAND --help` lists the options of a command.
"""

import argparse
import sys
from collections.abc import Callable
from importlib import import_module

from rollout_bench import __version__
from rollout_bench.core.errors import UserError, did_you_mean, run_command

NAME = "rollout-bench"

COMMANDS = {
    "init": ("init:main", "write a config.yaml: a demo, or one for your trainer, server or llm-d's profile"),
    "demo": ("demo:main", "measure a small model on this machine's CPU with an engine that is installed here"),
    "run": ("workflow:run", "measure missing launches, then write summary and figures"),
    "plan": (
        "workflow:plan",
        "print launches done, under way and missing, skipped combinations, and the time left",
    ),
    "measure": ("measure:main", "measure one launch, or the launches of a block; the workflow's jobs call it"),
    "build": ("build:main", "build a checkpoint with random weights; the workflow's jobs call it"),
    "kubernetes": ("workflow:kubernetes", "write the Kubernetes Job that measures a config"),
    "check": ("workflow:check", "print the facts for a bug report, and a fix for each problem"),
    "summarise": ("summarise:main", "make the summary of a results folder, also of a copy"),
    "show": ("show:main", "print the answer of a results folder again, or any of its tables"),
    "compare": ("compare:main", "compare two results folders"),
    "pack": ("pack:main", "make one small file of a results folder, which compare reads in its place"),
    "predict": ("predict:predict", "predict steps of any lengths, batches and engines from a calibration"),
    "recommend": ("predict:recommend", "name the settings with the shortest predicted step, and how to confirm them"),
    "history": ("history:main", "print and draw the gates that compare --history kept"),
    "export": ("export:main", "write results as llm-d's Benchmark Reports"),
    "collect": ("collect:main", "copy records from a cluster's volume into the local results"),
    "kit": ("kit:main", "measure on a machine without a network: make what it needs, and one file to bring back"),
    "from-verl": ("trainers:from_verl", "make a config from verl's settings"),
    "from-trl": ("trainers:from_trl", "make a config from TRL's settings"),
}
"""Sub-command -> module:function and purpose; a module without a dot is one of `rollout_bench.commands`."""


def all_commands() -> dict[str, tuple[str, str]]:
    """Return `COMMANDS` with those of the modes, as module:function; their modules are found when they are needed."""
    from rollout_bench.contracts.modes import MODES

    of_modes = [mode.part("command", "COMMAND") for mode in MODES.values()]
    return {**COMMANDS, **{name: (place, purpose) for name, place, purpose in filter(None, of_modes)}}


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options before a sub-command."""
    parser = argparse.ArgumentParser(prog=NAME, description=__doc__)
    parser.add_argument("--version", action="version", version=f"{NAME} {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, (_, purpose) in all_commands().items():
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
    known = COMMANDS if word in COMMANDS else all_commands()
    if word not in known:
        raise UserError(f"there is no command {word!r}", did_you_mean(word, known))
    sys.argv = [f"{NAME} {word}", *rest]
    module, _, function = known[word][0].partition(":")
    place = module if "." in module else f"rollout_bench.commands.{module}"
    run: Callable[[], int] = getattr(import_module(place), function)
    return run()


def main() -> None:
    """Run the command and end with its exit status."""
    run_command(dispatch)


if __name__ == "__main__":
    main()
