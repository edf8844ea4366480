"""What a command on results takes in: the results folder, and which of its experiments."""

from __future__ import annotations

import argparse
from pathlib import Path

from rollout_bench.plan.planfile import PlanFile, read_plan
from rollout_bench.reporting.state import plan_of_summary


def add_selection(parser: argparse.ArgumentParser) -> None:
    """Adds RESULTS_DIR, --plan and --all to `parser`."""
    parser.add_argument("results", type=Path, metavar="RESULTS_DIR", help="the results folder, wherever it lies")
    selection = parser.add_mutually_exclusive_group()
    selection.add_argument(
        "--plan",
        type=Path,
        metavar="FILE",
        help="plan file: which experiments and launches are selected "
        "(default: the plan of the summary in RESULTS_DIR, if there is one)",
    )
    selection.add_argument(
        "--all", action="store_true", help="take every experiment that is found, whatever was planned"
    )


def chosen_plan(arguments: argparse.Namespace) -> PlanFile | None:
    """The plan that is asked for, None for everything; raises `UserError` where it can't be read."""
    if arguments.all:
        return None
    return read_plan(arguments.plan) if arguments.plan else plan_of_summary(arguments.results)
