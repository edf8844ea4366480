"""Time what the workflow itself costs: dry runs beside a bare Snakemake, tables and figures of many records."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from claims import Claim
from page import machine_facts, page
from projects import fill_bare, fill_ours, make_bare, make_ours, size
from timing import Command, run, take_turns
from workspace import Workspace

from rollout_bench.plan.config_file import name_after
from rollout_bench.report.state import SUMMARIES
from rollout_bench.snakefile import PLAN_FILE

CORES = 2
"""What the promises are made for."""

AT_MOST_TIMES = 2.0
SUMMARY_LIMIT_S = 10.0


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="Exit status: 0 whatever the times are; 1 when something could not be timed.",
    )
    parser.add_argument("--launches", type=_count, default=5000, help="launches in the matrix (default: 5000)")
    parser.add_argument("--runs", type=_count, default=3, help="how often each command is timed (default: 3)")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the results as a page, too")
    return parser


def main() -> None:
    """Make both projects in a temporary folder, time them, print a line for each claim."""
    arguments = parser().parse_args()
    os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:CORES]))
    load = os.getloadavg()[0]
    print("\n".join(machine_facts(load)), flush=True)
    with tempfile.TemporaryDirectory(prefix="rollout-bench-") as folder:
        claims = measure(Path(folder), arguments.launches, arguments.runs)
    if arguments.write:
        arguments.write.parent.mkdir(parents=True, exist_ok=True)
        arguments.write.write_text(page(claims, size(arguments.launches), arguments.runs, load))
        print(arguments.write)


def measure(folder: Path, launches: int, runs: int) -> list[Claim]:
    """Time everything with `launches` launches (or a few more) below `folder`, and print each claim as it is known."""
    jobs = size(launches)
    ours, bare = make_ours(folder / "ours", launches), make_bare(folder / "bare", jobs)
    run(_snakemake(ours, ours.path, "--list-rules", expected="launch"))  # compiles the modules

    claims = []

    def claim(*parts: Claim) -> None:
        for part in parts:
            claims.append(part)
            print(part.line(), flush=True)

    missing = take_turns(
        [
            _snakemake(ours, ours.path, "-n", expected=f"launch {jobs}"),
            _snakemake(ours, bare, "-n", expected=f"job {jobs}"),
        ],
        runs,
    )
    claim(Claim(f"dry run, {jobs:,} launches, all missing", AT_MOST_TIMES, *missing))

    fill_ours(ours)
    fill_bare(bare, jobs)
    tables, figures = take_turns([_command(ours, name) for name in ("summarise.py", "plot.py")], runs)
    claim(
        Claim(f"summarise.py, {jobs:,} records", SUMMARY_LIMIT_S, tables),
        Claim(f"plot.py, {jobs:,} records", None, figures),
    )

    there = take_turns(
        [_snakemake(ours, place, "-n", expected="Nothing to be done") for place in (ours.path, bare)], runs
    )
    claim(Claim(f"dry run, {jobs:,} launches, all there", AT_MOST_TIMES, *there))
    return claims


def _snakemake(ours: Workspace, place: Path, *arguments: str, expected: str) -> Command:
    return Command(ours.command(*arguments), place, ours.environment, expected)


def _command(ours: Workspace, name: str) -> Command:
    """Return a command as the workflow calls it."""
    script = str(ours.path / "workflow" / "scripts" / name)
    words = ["results", "--plan", str(PLAN_FILE), "--also", f"results/{SUMMARIES}/{name_after(())}"]
    return Command([sys.executable, script, *words], ours.path, ours.environment, expected="results/")


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return value


if __name__ == "__main__":
    main()
