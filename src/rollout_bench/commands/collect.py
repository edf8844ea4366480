"""Copy records from a cluster's volume, from any copy of it, or from a kit's file, into the local results folder.

Each record is validated, then copied with its side files and its log. An existing record is never replaced. Failures
and the plans of configs are copied, too. A second call copies only new records. Links are not followed.
"""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from rollout_bench.cluster.retrieval import collect, is_linked
from rollout_bench.core.errors import UserError, printable
from rollout_bench.core.files import write_whole
from rollout_bench.core.locks import locked
from rollout_bench.core.options import Parser
from rollout_bench.report.pack import opened
from rollout_bench.report.state import STATE_FILE, SUMMARIES, plan_of_summary


def parser() -> Parser:
    """Return the argument parser."""
    parser = Parser(
        prog="rollout-bench collect",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Exit status: 0 when the local results have every launch of FOLDER, 1 when a launch was refused.",
    )
    parser.add_argument(
        "source", type=Path, metavar="FOLDER", help="folder that holds results/ and logs/, or the file of a kit"
    )
    parser.add_argument(
        "--results", type=Path, default=Path("results"), metavar="DIR", help="local results (default: %(default)s)"
    )
    parser.add_argument(
        "--logs", type=Path, default=Path("logs"), metavar="DIR", help="local logs (default: %(default)s)"
    )
    return parser


def main(argv: Sequence[str]) -> int:
    """Collect the launches and print a summary."""
    arguments = parser().parse_args(argv)
    results, source = arguments.results, arguments.source
    if source.is_file():
        file, source = source, opened(source)
        if not (source / "results").is_dir():
            raise UserError(f"{file}: is a pack, which a kit did not bring back", f"read it: rollout-bench show {file}")
    with locked(results, "wait until it ends, then collect"):
        done = collect(source, results, arguments.logs)
        kept = _collect_plans(source / "results", results)
    for line in done.refused:
        print(line)
    records, failures = len(done.records), len(done.failures)
    print(
        f"{results}: {records} records and {failures} failures collected,"
        f" {done.present} there already, {len(done.refused)} not taken"
    )
    for name in kept:
        print(f"next: rollout-bench summarise {shlex.quote(printable(str(results / name)))}")
    return 1 if done.refused else 0


def _collect_plans(source: Path, results: Path) -> list[Path]:
    """Copy the plan of each config that has none here; return their folders in the results folder."""
    kept = []
    for path in sorted(source.glob(f"{SUMMARIES}/*/{STATE_FILE}")):
        home = results / path.relative_to(source)
        if not home.exists() and not is_linked(source, path) and plan_of_summary(path.parent):
            write_whole(home, path.read_bytes())
            kept.append(home.parent.relative_to(results))
    return kept
