"""Draw the figures throughput, speedup and iterations from the records in a results folder, as SVG and PNG."""

from __future__ import annotations

import argparse
from pathlib import Path

from rollout_bench.errors import run_command
from rollout_bench.reporting.earlier import collect_with_earlier
from rollout_bench.reporting.selection import add_selection, chosen_plan


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog="Exit status: 0 when the figures are drawn, 1 on an error."
    )
    add_selection(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the figures go (default: RESULTS_DIR/figures)")
    return parser


def main() -> int:
    """Reads, draws, and only then writes."""
    arguments = parser().parse_args()
    results: Path = arguments.results
    collection = collect_with_earlier(results, chosen_plan(arguments))
    # Not at the top: --help and errors in the records need not wait for matplotlib.
    from rollout_bench.reporting.figures.save import NAMES, save_figures

    out: Path = arguments.out or results / "figures"
    save_figures(collection, out)
    print(f"{', '.join(str(out / name) for name in NAMES)} (.svg, .png)")
    return 0


if __name__ == "__main__":
    run_command(main)
