"""Compare two results folders: two engines, two machines, or two runs of the same experiments.

Speed-ups are B relative to A. The folders were not measured interleaved, so drift between them is part of the
difference.
"""

import argparse
import sys
from pathlib import Path

from pydantic import ValidationError

from rollout_bench.core.errors import UserError, tell
from rollout_bench.core.files import folder_named, write_whole
from rollout_bench.numbers.registry import COMPARED, NUMBERS, MetricName
from rollout_bench.plan.config import ComparisonSettings

OPTIONS = {
    "metrics": "metric",
    "confidence": "confidence",
    "relevant_difference": "relevant-difference",
}
"""Field of the settings -> the option that sets it."""


def parser() -> argparse.ArgumentParser:
    """Return the argument parser."""
    default = ComparisonSettings()
    of_modes = [f"{mode} {' '.join(names)}" for mode, names in default.metrics.items()]
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="Exit status: 0 when the folders are compared, 1 on an error, 3 when they are compared without damaged "
        "records, which are listed on stderr.",
    )
    parser.add_argument("a", type=Path, metavar="A", help="the earlier results folder, or a summary kept in one")
    parser.add_argument("b", type=Path, metavar="B", help="results folder, or summary, whose speed-ups are reported")
    parser.add_argument(
        "--all",
        action="store_true",
        help="compare all experiments in the folders (default: the experiments of each folder's summary, if any)",
    )
    parser.add_argument(
        "--differ",
        nargs="+",
        choices=["engine", "machine"],
        default=[],
        help="what may differ between A and B (default: engine or machine, not both)",
    )
    parser.add_argument(
        "--metric",
        action="append",
        choices=COMPARED,
        help=f"metric to compare; can be given several times (default: {'; '.join(of_modes)})",
    )
    parser.add_argument(
        "--confidence", type=float, metavar="SHARE", help=f"confidence of each interval (default: {default.confidence})"
    )
    parser.add_argument(
        "--relevant-difference",
        type=float,
        metavar="SHARE",
        help=f"speed-ups closer to 1 are never marked ^ or v (default: {default.relevant_difference})",
    )
    parser.add_argument(
        "--out", type=folder_named, metavar="DIR", help="write compare.md and compare.csv to this folder"
    )
    return parser


def main() -> int:
    """Read and compare both folders, then write the result."""
    arguments = parser().parse_args()
    asked = settings(arguments)
    # Not at the top: --help need not wait for scipy and pandas.
    from rollout_bench.report.differences import compare_folders

    made = compare_folders(arguments.a, arguments.b, asked, arguments.differ, arguments.all)
    if arguments.out:
        write_whole(arguments.out / "compare.md", made.markdown.encode())
        write_whole(arguments.out / "compare.csv", made.csv.encode())
    print(made.text, end="")
    return tell(made.damaged)


def settings(arguments: argparse.Namespace) -> ComparisonSettings:
    """Return the settings from `arguments`, with defaults for the rest; raise `UserError` for an invalid value."""
    asked: list[MetricName] | None = arguments.metric
    default = ComparisonSettings()
    of_modes = {mode: [each for each in asked or () if NUMBERS[each].mode in ("", mode)] for mode in default.metrics}
    given = {
        # Tables of a mode that has none of the metrics keep the default.
        "metrics": {mode: names for mode, names in of_modes.items() if names},
        "confidence": arguments.confidence,
        "relevant_difference": arguments.relevant_difference,
    }
    try:
        return ComparisonSettings.model_validate({name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        message = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
        raise UserError(
            f"--{OPTIONS[str(first['loc'][0])]}: {first['input']!r} {message}", f"see {Path(sys.argv[0]).name} --help"
        ) from None
