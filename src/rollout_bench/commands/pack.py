"""Make one small file of a results folder, which `compare` reads in place of the folder.

It has all records and failures, the experiments that the summary selects, and the times of requests of mode online. It
lacks traces and figures, and without --sequences the times of other sequences, so that percentiles, t90_s, tail_s and
group_p90_s are not in it. The same folder always gives the same bytes. Records name the machine, unless --anonymous.
"""

from collections.abc import Sequence
from pathlib import Path

from rollout_bench.core.options import Parser
from rollout_bench.report.pack import write_pack
from rollout_bench.report.state import add_results


def main(argv: Sequence[str]) -> int:
    """Write the pack, and print its size."""
    parser = Parser(
        prog="rollout-bench pack", description=__doc__, epilog="Exit status: 0 when the file is written, 1 on an error."
    )
    add_results(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the file, such as baseline.tar.xz")
    parser.add_argument(
        "--sequences", action="store_true", help="add the times of all sequences, so that others can check percentiles"
    )
    parser.add_argument(
        "--anonymous",
        action="store_true",
        help="number the machines, and leave out folders and failures, for results to be shared",
    )
    arguments = parser.parse_args(argv)
    write_pack(arguments.results, arguments.out, sequences=arguments.sequences, anonymous=arguments.anonymous)
    print(f"{arguments.out}: {arguments.out.stat().st_size / 1024:.0f} KiB")
    return 0
