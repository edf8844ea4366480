"""Read Benchmark Reports of llm-d, theirs or ours, as results that `rollout-bench compare` can set beside ours.

They are kept as foreign results, with the values and units that they report; nothing is made up. Versions 0.2 and 0.2.1
are read. No verdict is ever given on a foreign result.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rollout_bench.core.errors import UserError
from rollout_bench.core.files import folder_named
from rollout_bench.core.numbers import several


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="Exit status: 0 when every report is read, 1 on an error; then nothing is written.",
    )
    parser.add_argument("reports", nargs="+", type=Path, metavar="REPORT", help="a report, YAML or JSON")
    parser.add_argument(
        "--out", type=folder_named, metavar="FOLDER", required=True, help="folder for foreign results alone"
    )
    parser.add_argument("--model", metavar="NAME", help="what your config calls the model that the reports are of")
    return parser


def main() -> int:
    """Read all, and only then write."""
    arguments = parser().parse_args()
    if arguments.model is not None and not arguments.model.strip():
        raise UserError("--model: is empty", "name the model as your config does, or leave it out")
    # Not at the top: --help need not wait for numpy and pandas.
    from rollout_bench.exchange.foreign import read_reports, write_foreign

    imported = read_reports(arguments.reports, arguments.out, arguments.model)
    write_foreign(imported)
    for line in imported.left_out:
        print(line, file=sys.stderr)
    print(f"{arguments.out}: {several(len(imported.results), 'foreign result')}")
    return 0
