"""Print the output tokens per second and device of several results: what to expect, and is a machine slow?

Modes offline and rollout count. The files of --out name neither the machine nor a path, so that they can be shared;
the table of others' CSV files is one of theirs and yours.
"""

from collections.abc import Sequence
from pathlib import Path

from rollout_bench.core.files import folder_named, write_whole
from rollout_bench.core.options import Parser


def main(argv: Sequence[str]) -> int:
    """Print the table; write it, if a folder is named."""
    parser = Parser(
        prog="rollout-bench table",
        description=__doc__,
        epilog="Exit status: 0 when the table is printed, 1 on an error, such as results without these modes.",
    )
    parser.add_argument(
        "results", nargs="+", type=Path, metavar="RESULTS", help="results folder, pack, or table.csv of --out"
    )
    parser.add_argument("--out", type=folder_named, metavar="DIR", help="write table.md and table.csv to this folder")
    arguments = parser.parse_args(argv)
    # Not at the top: --help need not wait for pandas.
    from rollout_bench.report.speeds import files_of

    files = files_of(arguments.results)
    print(files["txt"], end="")
    for end in ("md", "csv") if arguments.out else ():
        write_whole(arguments.out / f"table.{end}", files[end].encode())
    return 0
