"""Show what many launches cost the workflow: planning, running an instant stand-in, leases, a Slurm of many nodes.

No engine runs. Costs must grow with the number of launches and not faster; the page says from where on they do.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from page import machine_facts
from projects import REPOSITORY, make_ours, size
from timing import Command
from watching import Watched, watch
from workspace import Workspace

sys.path.append(str(REPOSITORY / "tests" / "cluster"))

QUIET = ("-n", "--quiet", "all")
PARTS = 4
"""Of a run: each has its own row, so that a cost that changes on the way shows."""

AT_A_TIME = 24
"""Jobs on the Slurm: each starts Snakemake twice, which takes 350 MB and seconds of this machine's processors."""

HOLD_S = 0.1
BEGIN, END = "<!-- measured -->\n", "<!-- /measured -->"

PLANNED = """\
| launches | config alone, s | processor, s | MiB | dry run, s | processor, s | MiB | processor, ms a launch |
| --: | --: | --: | --: | --: | --: | --: | --: |"""
RUN = """\
| of {launches:,} launches | launches/s | processor of Snakemake itself, ms a launch |
| --: | --: | --: |"""
LEASES = """\
| processes | devices | s until all had one | least possible, s | processor, ms a lease |
| --: | --: | --: | --: | --: |"""
NODES = """\
| nodes | launches | s | launches/s | processor of Snakemake itself, ms a launch | of everything else, ms a launch |
| --: | --: | --: | --: | --: | --: |"""


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, epilog="Exit status: 1 when something could not be measured.")
    sizes = [1000, 10_000, 100_000]
    parser.add_argument("--planned", type=int, nargs="*", default=sizes, help="sizes to plan (default: up to 100,000)")
    parser.add_argument("--run", type=int, default=10_000, help="launches that run (default: %(default)s; 0: none)")
    parser.add_argument("--holders", type=int, nargs="*", default=[8, 64, 256], help="processes that want devices")
    parser.add_argument("--devices", type=int, default=8, help="devices that they want (default: %(default)s)")
    parser.add_argument("--nodes", type=int, default=64, help="nodes of the Slurm (default: %(default)s; 0: none)")
    parser.add_argument("--submitted", type=int, default=300, help="launches on it (default: %(default)s)")
    parser.add_argument("--write", type=Path, metavar="FILE", help="replace the measured part of this page")
    return parser


def main() -> None:
    """Measure what is asked for, printing each line as it is known."""
    arguments = parser().parse_args()
    lines = []
    with tempfile.TemporaryDirectory(prefix="rollout-bench-") as name:
        for line in measure(arguments, Path(name)):
            print(line, flush=True)
            lines.append(line)
    if arguments.write:
        head, _, rest = arguments.write.read_text().partition(BEGIN)
        tail = rest.partition(END)[2]
        arguments.write.write_text("\n".join([f"{head}{BEGIN}", *lines, f"\n{END}{tail}"]))


def measure(arguments: argparse.Namespace, folder: Path) -> Iterator[str]:
    """Yield the lines of the page's measured part."""
    yield "\n".join(f"- {fact}" for fact in machine_facts(os.getloadavg()[0]))
    if arguments.planned:
        yield f"\n### Planning\n\n{PLANNED}"
        yield from (plan(folder / "planned", launches) for launches in arguments.planned)
    if arguments.run:
        yield from run(folder / "run", arguments.run)
    if arguments.holders:
        from leases import contend

        yield f"\n### Leases\n\n{LEASES}"
        for holders in arguments.holders:
            found = contend(folder / f"leases-{holders}", holders, arguments.devices, HOLD_S)
            each_ms = 1000 * found.processor_s / holders
            yield f"| {holders} | {found.devices} | {found.wall_s:.1f} | {found.least_s:.1f} | {each_ms:.0f} |"
    if arguments.nodes:
        yield f"\n### {arguments.nodes} nodes\n\n{NODES}"
        yield submit(folder, arguments.nodes, arguments.submitted)


def plan(folder: Path, launches: int) -> str:
    """Return a row for a matrix of so many launches: what each call of snakemake costs, and what a dry run does."""
    ours = make_ours(folder, launches)
    count = size(launches)
    read = watch(_snakemake(ours, "--list-rules", expected="launch"))
    dry = watch(_snakemake(ours, *QUIET, expected=""))
    shutil.rmtree(folder)
    each_ms = 1000 * (dry.processor_s - read.processor_s) / count
    return f"| {count:,} | {_costs(read)} | {_costs(dry)} | {each_ms:.2f} |"


def run(folder: Path, launches: int) -> Iterator[str]:
    """Run so many launches of the stand-in; rows for its parts, then the whole and its summary."""
    import stand_in

    ours, count = make_ours(folder, launches), size(launches)
    workload = stand_in.CONFIG["workload_settings"]["small"]
    python = stand_in.install(folder / "stand-in")
    ours.overlay({"engine": {"python": python}, "workload_settings": {"demo": workload}, "iterations": 3})
    found = watch(_snakemake(ours, "--quiet", "all", expected=""), _records(folder))
    yield f"\n### Running\n\n{RUN.format(launches=count)}"
    for part in range(PARTS):
        wall_s, own_s = found.part(part, PARTS)
        edges = f"{count * part // PARTS:,} to {count * (part + 1) // PARTS:,}"
        yield f"| {edges} | {count / PARTS / wall_s:.1f} | {1000 * own_s * PARTS / count:.0f} |"
    each_ms = 1000 * found.processor_s / count
    yield (
        f"\nAll together: {found.wall_s:,.0f} s, {each_ms:.0f} ms of processor a launch with the stand-in and the"
        f" summary; Snakemake took {_mebibytes(found)} MiB and had {found.threads} threads at most."
    )
    again = watch(_snakemake(ours, "-n", expected="Nothing to be done"))
    arguments = [sys.executable, "workflow/scripts/summarise.py", "results", "--plan", "results/plan.json"]
    summary = watch(Command(arguments, folder, ours.environment, "results/"))
    yield (
        f"The summary of {count:,} records alone: {summary.wall_s:.0f} s, {_mebibytes(summary)} MiB."
        f" A dry run with all of them there: {again.wall_s:.1f} s."
    )


def submit(folder: Path, nodes: int, launches: int) -> str:
    """Return a row for so many launches of the stand-in, submitted to a Slurm of so many nodes on this machine."""
    import slurm
    import stand_in
    from workflows import OnSlurm

    work = folder / "submitted"
    with slurm.running(folder / "slurm", nodes=nodes, cpus=2) as of_nodes:
        ours = OnSlurm(work, of_nodes, {})
        half = -(-launches // 2)
        ours.overlay({"launches": half, "engine": {"python": stand_in.install(work / "stand-in")}})
        profile = ("--workflow-profile", "profiles/slurm", "--seconds-between-status-checks", "5")
        command = (*profile, "--jobs", str(AT_A_TIME), "--quiet", "all")
        found = watch(_snakemake(ours, *command, expected=""), _records(work))
        done = found.moments[-1].done
    if done != 2 * half:
        raise SystemExit(f"{done} of {2 * half} launches were measured")
    own_ms, all_ms = 1000 * found.own_s / done, 1000 * found.processor_s / done
    rate = f"{done / found.wall_s:.1f}"
    return f"| {nodes} | {done:,} | {found.wall_s:.0f} | {rate} | {own_ms:.0f} | {all_ms - own_ms:.0f} |"


def _records(folder: Path) -> Callable[[], int]:
    return lambda: sum(1 for _ in folder.glob("results/offline/*/launch-*.json"))


def _snakemake(ours: Workspace, *arguments: str, expected: str) -> Command:
    return Command(ours.command(*arguments), ours.path, ours.environment, expected)


def _costs(found: Watched) -> str:
    return f"{found.wall_s:.1f} | {found.processor_s:.1f} | {_mebibytes(found)}"


def _mebibytes(found: Watched) -> str:
    return f"{found.peak_bytes / 2**20:,.0f}"


if __name__ == "__main__":
    main()
