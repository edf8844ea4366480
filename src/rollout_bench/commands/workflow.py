"""The workflow, called as sub-commands: run it, show what is planned, check what it needs."""

from __future__ import annotations

import argparse
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from rollout_bench.core.errors import UserError


def run() -> NoReturn:
    """Measure what is missing, then write summary and figures, or make what the arguments name."""
    _call(run.__doc__ or "")


def plan() -> NoReturn:
    """Print what is done, under way, missing, or skipped and why, and the minutes that are left."""
    _call(plan.__doc__ or "", "plan")


def check() -> NoReturn:
    """Print what a bug report needs, and for each problem its fix; exit status 1 where there is one."""
    _call(check.__doc__ or "", "check")


def _call(purpose: str, *targets: str) -> NoReturn:
    """Become Snakemake, called with `targets` and the arguments of this command; never return.

    Raises:
        UserError: there is no Snakemake here.
    """
    if {"-h", "--help"} & set(sys.argv[1:]):
        said = " ".join(("snakemake", *targets))
        argparse.ArgumentParser(
            usage="%(prog)s [ARGUMENT ...]",
            description=f"{purpose} The same as `{said}`, called in the folder of the clone, and takes its arguments.",
        ).parse_args(["--help"])  # ends here
    if find_spec("snakemake") is None:
        raise UserError(
            f"{sys.executable} has no Snakemake",
            "run `make setup` in the clone, then call .venv/bin/rollout-bench",
        )
    if not Path("Snakefile").exists() and not {"-s", "--snakefile", "-d", "--directory"} & set(sys.argv):
        raise UserError(f"{Path.cwd()} has no Snakefile", "call it in the folder of the clone")
    os.execv(sys.executable, [sys.executable, "-m", "snakemake", *targets, *sys.argv[1:]])
