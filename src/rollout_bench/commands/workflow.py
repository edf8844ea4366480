"""Sub-commands that call the workflow: run it, show its plan, check its requirements."""

from __future__ import annotations

import argparse
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from rollout_bench.core.errors import UserError


def run() -> NoReturn:
    """Measure missing launches, then write summary and figures; or make the targets that the arguments name."""
    _call(run.__doc__ or "")


def plan() -> NoReturn:
    """Print launches done, under way and missing, skipped combinations with reasons, and the minutes left."""
    _call(plan.__doc__ or "", "plan")


def check() -> NoReturn:
    """Print the facts for a bug report, and a fix for each problem; exit status 1 if there is a problem."""
    _call(check.__doc__ or "", "check")


def _call(purpose: str, *targets: str) -> NoReturn:
    """Replace this process with Snakemake, called with `targets` and this command's arguments.

    Raises:
        UserError: if Snakemake is not installed or this folder has no Snakefile.
    """
    if {"-h", "--help"} & set(sys.argv[1:]):
        said = " ".join(("snakemake", *targets))
        argparse.ArgumentParser(
            usage="%(prog)s [ARGUMENT ...]",
            description=f"{purpose} This calls `{said}` with the same arguments. Run it in the folder of the clone.",
        ).parse_args(["--help"])  # ends here
    if find_spec("snakemake") is None:
        raise UserError(
            f"{sys.executable} has no Snakemake",
            "run `make setup` in the clone, then call .venv/bin/rollout-bench",
        )
    if not Path("Snakefile").exists() and not {"-s", "--snakefile", "-d", "--directory"} & set(sys.argv):
        raise UserError(f"{Path.cwd()} has no Snakefile", "run the command in the folder of the clone")
    os.execv(sys.executable, [sys.executable, "-m", "snakemake", *targets, *sys.argv[1:]])
