"""Measure RL rollouts with vLLM: run the workflow, print its plan, check the machine, compare results.

`rollout-bench COMMAND --help` lists the options of a command.
"""

import argparse
import os
import sys
from collections.abc import Callable
from importlib import import_module

from rollout_bench import __version__
from rollout_bench.core.errors import UserError, did_you_mean, run_command
from rollout_bench.core.options import Parser

NAME = "rollout-bench"

GROUPS = {
    "measure": {
        "init": (
            "init:main",
            "write a config.yaml: a demo, or one for your trainer, server or llm-d's profile",
            "init",
        ),
        "demo": (
            "demo:main",
            "measure a small model on this machine's CPU with an engine that is installed here",
            "demo",
        ),
        "check": ("workflow:check", "print the facts for a bug report, and a fix for each problem", "check"),
        "plan": (
            "workflow:plan",
            "print launches done, under way and missing, skipped combinations, and the time left",
            "plan --configfile mine.yaml",
        ),
        "run": (
            "workflow:run",
            "measure missing launches, then write summary and figures",
            "run --configfile mine.yaml",
        ),
        "kubernetes": (
            "workflow:kubernetes",
            "write the Kubernetes Job that measures a config",
            "kubernetes --configfile mine.yaml",
        ),
    },
    "read": {
        "show": ("show:main", "print the answer of a results folder again, or any of its tables", "show"),
        "summarise": ("summarise:main", "make the summary of a results folder, also of a copy", "summarise results"),
        "predict": (
            "predict:predict",
            "predict steps of any lengths, batches and engines from a calibration",
            "predict --configfile configs/steps.yaml --config 'modes=[rollout]'",
        ),
        "recommend": (
            "predict:recommend",
            "name the settings with the shortest predicted step, and how to confirm them",
            "recommend --configfile configs/steps.yaml --config 'modes=[rollout]' 'sweep={max_num_seqs: [4, 16]}'",
        ),
    },
    "convert": {
        "from-verl": (
            "trainers:from_verl",
            "make a config from verl's settings",
            "from-verl training.yaml > mine.yaml",
        ),
        "from-trl": (
            "trainers:from_trl",
            "make a config from TRL's settings",
            "from-trl grpo.yaml num_processes=8 max_prompt_length=512 > mine.yaml",
        ),
        "export": (
            "export:main",
            "write results as llm-d's Benchmark Reports",
            "export results --format benchmark-report --out reports",
        ),
    },
    "compare": {
        "compare": (
            "compare:main",
            "compare two results folders, also as a gate for builds",
            "compare baseline.tar.xz results --fail-if default",
        ),
        "history": (
            "history:main",
            "print and draw the gates that compare --history kept",
            "history gates.jsonl --out drawn",
        ),
    },
    "share": {
        "pack": (
            "pack:main",
            "make one small file of a results folder, which compare reads in its place",
            "pack results --out baseline.tar.xz",
        ),
        "collect": (
            "collect:main",
            "copy records from a cluster's volume into the local results",
            "collect /mnt/bench",
        ),
        "kit": (
            "kit:main",
            "measure on a machine without a network: make what it needs, and one file to bring back",
            "kit pack kit --platform cuda --python 3.12",
        ),
    },
}
"""What a user wants to do -> sub-command -> module:function, purpose and an example.

A module without a dot is one of `rollout_bench.commands`.
"""

INTERNAL = {"measure": "measure:main", "build": "build:main"}
"""Sub-command of the workflow's jobs -> module:function."""

COMMANDS = {**INTERNAL, **{name: place for group in GROUPS.values() for name, (place, _, _) in group.items()}}


def all_groups() -> dict[str, dict[str, tuple[str, str, str]]]:
    """Return `GROUPS` with the commands of the modes, which read; their modules are found when they are needed."""
    from rollout_bench.contracts.modes import MODES

    of_modes = filter(None, (mode.part("command", "COMMAND") for mode in MODES.values()))
    return {**GROUPS, "read": {**GROUPS["read"], **{name: tuple(rest) for name, *rest in of_modes}}}


def all_commands() -> dict[str, str]:
    """Return `COMMANDS` with those of the modes."""
    return {**COMMANDS, **{name: place for group in all_groups().values() for name, (place, _, _) in group.items()}}


def parser() -> Parser:
    """Return the parser of the options before a sub-command."""
    lines = []
    for title, group in all_groups().items():
        lines += ["", f"{title}:"]
        for name, (_, purpose, example) in group.items():
            lines += [f"  {name:<11} {purpose}", f"{'':14}$ {NAME} {example}"]
    parser = Parser(
        prog=NAME,
        usage="%(prog)s COMMAND [ARGUMENT ...]",
        description=__doc__,
        epilog="\n".join(lines).strip("\n"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"{NAME} {__version__}")
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
        raise UserError(f"there is no command {word!r}", did_you_mean(word, known.keys() - INTERNAL.keys()))
    sys.argv = [f"{NAME} {word}", *rest]
    os.environ["PYTHONSAFEPATH"] = "1"  # of all Pythons that are started: the user's folder has no module of theirs
    module, _, function = known[word].partition(":")
    place = module if "." in module else f"rollout_bench.commands.{module}"
    run: Callable[[], int] = getattr(import_module(place), function)
    return run()


def main() -> None:
    """Run the command and end with its exit status."""
    run_command(dispatch)


if __name__ == "__main__":
    main()
