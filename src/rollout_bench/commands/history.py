"""Print and draw the gates that `rollout-bench compare --history` appended to a file."""

from collections.abc import Sequence
from pathlib import Path

from rollout_bench.core.files import folder_named, write_whole
from rollout_bench.core.options import Parser


def parser() -> Parser:
    """Return the argument parser."""
    parser = Parser(
        prog="rollout-bench history",
        description=__doc__,
        epilog="Exit status: 0 when the history is printed, 1 on an error, as in a damaged line.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="file that compare --history wrote")
    parser.add_argument(
        "--out", type=folder_named, metavar="DIR", help="draw each number of each experiment as SVG in this folder"
    )
    return parser


def main(argv: Sequence[str]) -> int:
    """Print the history, and draw it if a folder is named."""
    arguments = parser().parse_args(argv)
    # Not at the top: --help need not wait for matplotlib.
    from rollout_bench.report.history import pictures_of, read_history, text_of

    gates = read_history(arguments.file)
    print(text_of(gates), end="")
    for picture in pictures_of(gates) if arguments.out else ():
        file = arguments.out / f"{picture.name}.svg"
        write_whole(file, picture.drawn.svg)
        print(file)
    return 0
