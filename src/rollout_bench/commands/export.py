"""Write results in a format of other tools: llm-d's Benchmark Report 0.2.1, as YAML.

Each valid launch has one file, and each experiment has one file for all its launches. A sweep has such files for each
load. Failed and invalid launches are not exported: stderr and index.json list them.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from rollout_bench.contracts.store import check_results_folder
from rollout_bench.core.errors import UserError, print_errors
from rollout_bench.core.files import folder_named
from rollout_bench.core.numbers import several
from rollout_bench.core.options import Parser
from rollout_bench.report.state import plan_of_summary, results_of

FORMATS = ("benchmark-report",)


def parser() -> Parser:
    """Return the argument parser."""
    parser = Parser(
        prog="rollout-bench export",
        description=__doc__,
        epilog="Exit status: 0 when every valid launch is written, 1 on an error, 3 when damaged records or side files "
        "were left out; stderr names them.",
    )
    parser.add_argument(
        "results",
        type=Path,
        metavar="RESULTS",
        help="results folder, to export everything; or a summary kept in one, to export its selection",
    )
    parser.add_argument("--format", choices=FORMATS, default=FORMATS[0], help="output format (default: %(default)s)")
    parser.add_argument("--out", type=folder_named, metavar="DIR", required=True, help="folder for the files")
    return parser


def main(argv: Sequence[str]) -> int:
    """Make all reports, then write them."""
    arguments = parser().parse_args(argv)
    results, out = results_of(arguments.results), arguments.out
    check_results_folder(results)
    if out.resolve().is_relative_to(results.resolve()):
        where = (
            "is the results folder itself" if out.resolve() == results.resolve() else f"lies in the results, {results}"
        )
        raise UserError(f"--out {out}: {where}", "name a separate folder for the reports")
    # Not at the top: --help need not wait for numpy and pandas.
    from rollout_bench.exchange.benchmark_report import export, write

    plan = None if results == arguments.results else plan_of_summary(arguments.results)
    exported = export(results, plan)
    for line in exported.left_out:
        print(line, file=sys.stderr)
    if not exported.reports:
        print_errors(exported.unread)
        raise UserError(
            f"{results}: contains no valid launch to report",
            "`rollout-bench summarise` lists the state of each launch",
        )
    write(exported, out)
    left_out = f"; not exported: {len(exported.left_out)}, named on stderr" if exported.left_out else ""
    print(f"{out}: {several(len(exported.reports), 'report')}{left_out}")
    return print_errors(exported.unread)
