"""Draw the figures of a results folder as SVG, and put them into its summary.html."""

from __future__ import annotations

import argparse
from pathlib import Path

import _src  # noqa: F401 (puts src/ on the path)

from rollout_bench.analysis.timed.collection import collect
from rollout_bench.contracts.modes import MODES
from rollout_bench.core.errors import run_command, tell
from rollout_bench.report.figure_names import NAMES
from rollout_bench.report.state import add_selection, chosen_plan, results_of


def parser() -> argparse.ArgumentParser:
    """Return the argument parser."""
    of_modes = "; ".join(f"of {mode.name} mode {', '.join(mode.figures)}" for mode in MODES.values())
    parser = argparse.ArgumentParser(
        description=f"{__doc__} Figures, if there is data for them: {of_modes}.",
        epilog="Exit status: 0 when the figures are drawn, 1 on an error, 3 when they are drawn without damaged "
        "records, which are listed on stderr.",
    )
    add_selection(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the figures (default: RESULTS_DIR/figures)")
    parser.add_argument(
        "--also",
        type=Path,
        metavar="DIR",
        help="write the figures to DIR/figures and into DIR/summary.html as well, if a summary is kept there",
    )
    parser.add_argument(
        "--figures",
        nargs="+",
        choices=NAMES,
        metavar="NAME",
        help="draw these figures, even without data; a figure without data shows the reason and is not in "
        f"summary.html: {', '.join(NAMES)} (default: all figures with data)",
    )
    return parser


def main() -> int:
    """Draw all figures, then write them."""
    arguments = parser().parse_args()
    results = results_of(arguments.results)
    collection = collect(results, chosen_plan(arguments))
    # Not at the top: --help and errors in the records need not wait for matplotlib.
    from rollout_bench.report.figures.save import save_figures

    out: Path = arguments.out or arguments.results / "figures"
    page = None if arguments.out else arguments.results / "summary.html"
    names = save_figures(results, collection, out, arguments.figures or (), page, arguments.also)
    print(
        ", ".join(str(out / f"{name}.svg") for name in names) if names else "no launch is valid, so there is no figure"
    )
    return tell(collection.damaged)


if __name__ == "__main__":
    run_command(main)
