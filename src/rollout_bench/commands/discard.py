"""Move doubtful records aside, so that the next call of snakemake measures their launches again.

If a launch moves, the launches of the same index that are compared with it also move. A launch that is measured alone
is not interleaved with them, so it forms no pair. Moved records are in RESULTS_DIR/aside, which no command reads.
"""

import argparse
from pathlib import Path

from rollout_bench.analysis.timed.collection import collect
from rollout_bench.contracts.store import record_path
from rollout_bench.core.errors import UserError
from rollout_bench.core.locks import locked
from rollout_bench.core.numbers import several
from rollout_bench.plan.planfile import PlanFile
from rollout_bench.plan.schedule import set_aside, torn, with_partners
from rollout_bench.report.state import SUMMARIES, plan_of_summary, results_of


def parser() -> argparse.ArgumentParser:
    """Return the argument parser."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "results",
        type=Path,
        nargs="?",
        default=Path("results"),
        metavar="RESULTS_DIR",
        help="results folder, whose last run is checked, or the summary of one config in it, "
        f"RESULTS_DIR/{SUMMARIES}/NAME (default: %(default)s)",
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--invalid", action="store_true", help="invalid launches, launches without a pair, and damaged records"
    )
    which.add_argument("--flagged", action="store_true", help="as --invalid, and all launches with a flag")
    parser.add_argument("--dry-run", action="store_true", help="only print which records would be moved")
    return parser


def main() -> int:
    """Print the doubtful records and move them."""
    arguments = parser().parse_args()
    results, plan = results_of(arguments.results), plan_of_summary(arguments.results)
    if plan is None:
        raise UserError(
            f"{arguments.results}: contains no summary, so the compared launches are unknown", "run `snakemake` first"
        )
    with locked(results, "wait until it ends, then discard"):
        doubtful = in_doubt(results, plan, every=arguments.flagged)
        records = sorted(with_partners(doubtful, plan.experiments, plan.baseline, results))
        print(*records, sep="\n", end="\n" if records else "")
        folder = None if arguments.dry_run else set_aside(records, results)
    where = f"moved to {folder}: the same snakemake call measures them again" if folder else "to be moved"
    print(f"{several(len(records), 'record')} {where}")
    return 0


def in_doubt(results: Path, plan: PlanFile, *, every: bool) -> set[str]:
    """Return the paths of doubtful records: invalid launches, or all flagged launches if `every`.

    Launches without an interleaved partner are doubtful, too, because they contribute to no verdict.
    """
    # Not at the top: --help need not wait for scipy and pandas.
    from rollout_bench.analysis.timed.rows import rows_of

    collection = collect(results, plan)
    doubtful = {
        (each.mode, each.experiment, launch)
        for each in collection.launched
        for launch in (
            *(record.launch for record in each.records if (record.validity if every else not record.valid)),
            *(damaged.launch for damaged in each.damaged),
        )
    }
    for row in rows_of(collection):
        own = row.experiment.whole
        doubtful |= {(own.mode, own.experiment, launch.launch) for launch in row.launches if not launch.paired}
    in_torn_blocks = {str(record) for measured, _ in torn(plan.blocks(results)) for record in measured}
    return {str(record_path(results, *place)) for place in doubtful} | in_torn_blocks
