"""Make summary.md, .html, .csv, .txt and figures/*.svg from the records in a results folder."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from rollout_bench import __version__
from rollout_bench.analysis.timed.collection import collect
from rollout_bench.core.errors import UserError, print_errors
from rollout_bench.core.files import write_whole
from rollout_bench.core.options import Parser
from rollout_bench.core.terminal import print_answer
from rollout_bench.report.pack import unpacked
from rollout_bench.report.state import (
    STATE_FILE,
    add_selection,
    results_of,
    selected_plan,
    summary_state,
    with_limits,
)


def parser() -> Parser:
    """Return the argument parser."""
    parser = Parser(
        prog="rollout-bench summarise",
        description=__doc__,
        epilog="Exit status: 0 when the summary is written, 1 on an error, 3 when it is written without damaged "
        "records, which are listed on stderr; with --check 1 when it is written and incomplete.",
    )
    add_selection(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the summary (default: RESULTS_DIR)")
    parser.add_argument(
        "--also",
        type=Path,
        metavar="DIR",
        help="keep a copy of the summary and its figures there",
    )
    parser.add_argument(
        "--check", action="store_true", help="exit with status 1 when planned launches are missing or failed"
    )
    return parser


def main(argv: Sequence[str]) -> int:
    """Summarise the results, then write all files."""
    arguments = parser().parse_args(argv)
    given = unpacked(arguments)
    if given != arguments.results and arguments.out is None:
        raise UserError(
            f"{given}: is a pack, in which nothing can be written", "name a folder for the summary: --out DIR"
        )
    results = results_of(arguments.results)
    plan = selected_plan(arguments)
    # First, so that a change while the records are read makes the summary stale and not permanently wrong.
    state = summary_state(results, plan)
    collection = with_limits(collect(results, plan), results, plan)
    # Not at the top: --help and errors in the records need not wait for numpy and pandas.
    from rollout_bench.report.summary import summary_of

    made = summary_of(results, collection, drawn=True)
    made_of = {**state, "damaged": [e.problem for e in collection.damaged]}
    stated = json.dumps({**made_of, "version": __version__, "answer": made.answer}, indent=1) + "\n"
    out: Path = arguments.out or arguments.results
    # Show the kept figures, because the figures beside `out` may belong to another selection.
    kept: Path = arguments.also or out
    contents: dict[Path, str | bytes] = {}
    for place in dict.fromkeys((out, kept)):
        try:
            (place / "figures").mkdir(parents=True, exist_ok=True)  # Snakemake expects it even without a figure
        except OSError as error:
            problem = f"{place / 'figures'}: cannot be written: {error.strerror}"
            raise UserError(problem, "check owner and permissions, or name another folder: --out DIR") from None
        summary = made.placed(Path(os.path.relpath(results, place)), Path(os.path.relpath(kept / "figures", place)))
        contents |= {
            place / "summary.md": summary.markdown,
            place / "summary.html": summary.html,
            place / "summary.csv": summary.csv,
            place / "summary.txt": summary.text,
            **{place / name: table for name, table in summary.tables.items()},
            **{place / "figures" / f"{picture.name}.svg": picture.drawn.svg for picture in made.pictures},
            place / STATE_FILE: stated,
        }
    for path, content in contents.items():
        write_whole(path, content.encode() if isinstance(content, str) else content)
    print_answer(made.answer)
    print(f"\nAll tables and figures: {out / 'summary.html'} (.md, .csv, .txt)")
    status = print_errors(collection.damaged)
    return 1 if arguments.check and not collection.complete else status
