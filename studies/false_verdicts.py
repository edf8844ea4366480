"""A/A: how often does one configuration under two names get a verdict?

measure: launch it many times through Snakemake, with known differences beside it (for power.py), and keep the numbers
of each launch in studies/results/launches.json. Continues where it was ended.
analyse: the false verdicts among comparisons of three pairs each, and among tables simulated from the same noise.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from copies import TEMPORARY, Copy
from false_verdict_shares import analyse
from kept import alone, keep, kept
from repeats import BASE, OUTPUT_TOKENS, SETTINGS, Launches, read, take


def measure(folder: Path, launches: int, base_launches: int) -> None:
    """Measure what is missing, then keep what there is, also when some launches failed or it was interrupted."""
    with alone():
        copy = Copy(folder, SETTINGS)
        place = copy.place()
        try:
            well = take(copy, launches, list(OUTPUT_TOKENS))
            well &= base_launches <= launches or take(copy, base_launches, [BASE])
        finally:
            if (folder / "results").is_dir():
                found = read(folder, place)
                print(f"{len(found.launches)} launches measured, {found.failed} failed: {keep('launches', found)}")
    if not well:
        raise SystemExit("not all launches were measured\nrun the same command again: it continues")


def main() -> None:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    measuring = commands.add_parser("measure", help="measure what is missing; about 15 s a launch")
    measuring.add_argument("--launches", type=int, default=24, help="of each of the eight sides (default: %(default)s)")
    measuring.add_argument(
        "--base-launches", type=int, default=0, help="of the two sides without a difference, where more are wanted"
    )
    measuring.add_argument(
        "--folder",
        type=Path,
        default=TEMPORARY / "repeats",
        help="copy of the project (default: %(default)s); it keeps the code of when it was made",
    )
    analysing = commands.add_parser("analyse", help="count and simulate, from what is kept; no engine")
    analysing.add_argument("--tables", type=int, default=10_000, help="simulated (default: %(default)s)")
    analysing.add_argument("--seed", type=int, default=1, help="of the random numbers (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.command == "measure":
        measure(arguments.folder.absolute(), arguments.launches, arguments.base_launches)
        return
    launches = kept("launches", Launches)
    if launches is None:
        raise SystemExit("nothing is measured\nrun `python studies/false_verdicts.py measure` first")
    result = analyse(launches, arguments.tables, arguments.seed)
    print(f"real verdicts: {result.marked}; p < 0.05: {result.significant}")
    print(keep("false_verdicts", result))


if __name__ == "__main__":
    main()
