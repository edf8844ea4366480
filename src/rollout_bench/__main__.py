"""Measure RL rollouts with vLLM: run the workflow, print its plan, check the machine, compare results.

`rollout-bench COMMAND --help` lists the options of a command.
"""

import argparse
import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from itertools import dropwhile, pairwise
from typing import NoReturn

from rollout_bench import __version__
from rollout_bench.commands.groups import COMMANDS, INTERNAL, NAME, OTHERS, all_groups
from rollout_bench.core.errors import UserError, did_you_mean, near_miss, run_command
from rollout_bench.core.options import COMPLETING, Parser


def all_commands() -> dict[str, str]:
    """Return `COMMANDS` with those of the modes."""
    return {**COMMANDS, **{name: place for group in all_groups().values() for name, (place, _, _) in group.items()}}


class _Version(argparse.Action):
    """Prints the versions that a bug report needs."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        # not at the top: --help need not wait for pydantic
        from rollout_bench.contracts.record import SCHEMA_VERSION
        from rollout_bench.contracts.spec import MEASUREMENT_VERSION

        print(f"{NAME} {__version__} (measurement_version {MEASUREMENT_VERSION}, schema_version {SCHEMA_VERSION})")
        parser.exit()


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
    parser.add_argument("--version", action=_Version, nargs=0, help="show the versions of program and records and exit")
    return parser


def dispatch(words: Sequence[str]) -> int:
    """Run the sub-command that the first of `words` names with the others; return its exit status.

    Raises:
        UserError: if the sub-command is unknown or fails.
    """
    word, *argv = words or ["--help"]
    if word.startswith("-"):
        if command := next((other for other in argv if other in COMMANDS), None):
            others = [other for other in words if other != command]
            raise UserError(f"{word}: the command stands first", f"write {NAME} {shlex.join([command, *others])}")
        if word.partition("=")[0] in ("--config", "--configfile", "--cores", "-n", "--dry-run"):
            command = "plan" if {"-n", "--dry-run"} & {*words} else "run"
            raise UserError(f"{word}: is an option of a command", f"write {NAME} {shlex.join([command, *words])}")
        parser().parse_args([word])
    known = COMMANDS if word in COMMANDS else all_commands()
    if word not in known:
        other = _server_in(argv) or OTHERS.get(word.replace("-", ""))
        if word == "help" and argv:
            other = f"{NAME} {argv[0]} --help"
        elif other == OTHERS["bench"]:
            other = _run_with(argv)
        if word.startswith("from-") and not near_miss(word, COMMANDS, 0.85):
            raise UserError(
                f"there is no command {word!r}", "for another trainer write config.yaml by hand, as in README.md"
            )
        remedy = f"write {other}" if other else did_you_mean(word, known.keys() - INTERNAL.keys())
        raise UserError(f"there is no command {word!r}", remedy)
    os.environ["PYTHONSAFEPATH"] = "1"  # of all Pythons that are started: the user's folder has no module of theirs
    module, _, function = known[word].partition(":")
    place = module if "." in module else f"rollout_bench.commands.{module}"
    run: Callable[[Sequence[str]], int] = getattr(import_module(place), function)
    return run(argv)


def _server_in(words: Sequence[str]) -> str:
    """Return the command that measures a server whose address is in `words`; empty without one."""
    from rollout_bench.plan.meant import api_meant  # not at the top: commands that there are need not wait for it

    given = dict(pairwise(words))
    named = [place for option, place in given.items() if option in ("--url", "-u") and "://" not in place]
    named += [f"{given['--host']}:{given.get('--port', 8000)}"] if "--host" in given else []
    urls = (one for one in (*words, *(f"http://{place}" for place in named)) if re.match("https?://", one))
    url = next(map(api_meant, urls), "")
    others = [
        one for one, value in given.items() if one not in ("--host", "--port", "--url", "-u") and "://" not in value
    ]
    has_more = any(one.startswith("-") for one in others)
    rest = f"; then type the options after `{NAME} plan`, which names their keys" if has_more else ""
    return f"{NAME} init --from endpoint {shlex.quote(url)}{rest}" if url else ""


def _run_with(words: Sequence[str]) -> str:
    """Return the command that runs the load which options of other programs ask for, such as vllm bench's."""
    from rollout_bench.rules.checks import check_words  # loads Snakemake

    options = list(dropwhile(lambda word: not word.startswith("-"), words))
    try:
        check_words(options)
    except UserError as error:
        if error.remedy.startswith("write --config "):
            return f"{OTHERS['bench']} {error.remedy.removeprefix('write ')}"
    return OTHERS["bench"]


def complete(line: str) -> NoReturn:
    """Print what may follow the `line` of a shell, as argcomplete asks for it, and end."""
    typed = f"{line}.".split()[1:]  # the last word is being typed, and may be empty
    if len(typed) > 1 and typed[0] in all_commands():
        os.environ[COMPLETING] = "2"  # the command's own parser reads what follows its name
        dispatch([typed[0], "--help"])
    commands = parser()
    commands.add_argument("command", choices=sorted(all_commands().keys() - INTERNAL.keys()))
    commands.parse_args([])
    raise AssertionError("argcomplete ends the process")


def main(words: Sequence[str] | None = None) -> None:
    """Run a command, by default that of the command line, and end with its exit status."""
    if COMPLETING in os.environ:
        complete(os.environ["COMP_LINE"][: int(os.environ["COMP_POINT"])])
    run_command(partial(dispatch, sys.argv[1:] if words is None else words))


if __name__ == "__main__":
    main()
