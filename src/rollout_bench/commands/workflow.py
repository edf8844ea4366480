"""The workflow without Snakemake's own words: run it, show what is planned, check what it needs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from rollout_bench.core.errors import UserError, near_miss
from rollout_bench.plan.config_file import check_config_file

_CALL = Path(__file__).with_name("snakemake_call.py")


def run() -> NoReturn:
    """Measure what is missing, then write summary and figures, or make what the arguments name."""
    _call("run", run.__doc__ or "")


def plan() -> NoReturn:
    """Print what is done, under way, missing, or skipped and why, and the minutes that are left."""
    _call("plan", plan.__doc__ or "", "plan")


def check() -> NoReturn:
    """Print what a bug report needs, and for each problem its fix; exit status 1 where there is one."""
    _call("check", check.__doc__ or "", "check")


def _call(name: str, purpose: str, *targets: str) -> NoReturn:
    """Become Snakemake, called with `targets` and the arguments of this command; never return.

    Raises:
        UserError: there is no Snakemake here, or no Snakefile.
    """
    arguments = sys.argv[1:]
    if {"-h", "--help"} & set(arguments):
        _parser(name, purpose).parse_args(["--help"])  # ends here
    if find_spec("snakemake") is None:
        raise UserError(
            f"{sys.executable} has no Snakemake",
            "run `make setup` in the clone, then call .venv/bin/rollout-bench",
        )
    named = any(argument.startswith(("-s", "--snakefile")) for argument in arguments)
    if not named and not Path("Snakefile").is_file():
        raise UserError(f"there is no Snakefile in {Path.cwd()}", "go to the folder of a clone of rollout-bench")
    _check_files(name, arguments)
    # -P: the modules beside that program are no modules of their own there
    os.execv(sys.executable, [sys.executable, "-P", str(_CALL), *targets, *arguments])


def _check_files(name: str, arguments: Sequence[str]) -> None:
    """Raise `UserError` for a config that is not there, and for one that is named as if it were a target."""
    option = ""
    for argument in arguments:
        if argument.startswith("-"):
            option, equals, file = argument.partition("=")
            files = [file] if equals else []
        else:
            files = [argument]
        for file in files:
            if option in ("--configfile", "--configfiles"):
                if not Path(file).is_file():
                    close = near_miss(file, [str(path) for path in Path(file).parent.glob("*.y*ml")])
                    raise UserError(
                        f"{file}: there is no such file", f"did you mean '{close}'?" if close else "correct its name"
                    )
                check_config_file(Path(file))
            elif not option and file.endswith((".yaml", ".yml")) and Path(file).is_file():
                raise UserError(
                    f"{file}: is a config, and no result to make",
                    f"say rollout-bench {name} --configfile {file}",
                )


def _parser(name: str, purpose: str) -> argparse.ArgumentParser:
    """Return what prints the help of a command whose arguments are Snakemake's."""
    said = "snakemake" if name == "run" else f"snakemake {name}"
    parser = argparse.ArgumentParser(
        prog=f"rollout-bench {name}",
        description=f"{purpose} Call it in the folder of the clone.",
        epilog=f"The same as `{said}`, with nothing of Snakemake's own on the terminal but warnings and errors.",
    )
    parser.add_argument(
        "arguments",
        nargs="*",
        metavar="ARGUMENT",
        help="as for snakemake: --configfile mine.yaml, --config 'quants=[bf16,w8a8]' launches=5, --cores 2, -n",
    )
    return parser
