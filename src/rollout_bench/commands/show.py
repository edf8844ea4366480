"""Print the answer of a results folder again, or any of its tables."""

from collections.abc import Sequence

from rollout_bench.core.errors import UserError, print_errors
from rollout_bench.core.options import Parser
from rollout_bench.core.terminal import print_answer
from rollout_bench.report.pack import unpacked
from rollout_bench.report.state import add_selection, kept_answer, results_of, selected_plan, with_limits


def parser() -> Parser:
    """Return the argument parser."""
    parser = Parser(
        prog="rollout-bench show",
        description=__doc__,
        epilog="Exit status: 0 when something is printed, 1 on an error, 3 when damaged records are left out.",
    )
    add_selection(parser)
    parser.add_argument(
        "--table",
        metavar="WORDS",
        help="print the tables and notes whose titles contain these words, such as failed; without any, the tables "
        "with such a column, such as TTFT",
    )
    return parser


def main(argv: Sequence[str]) -> int:
    """Print the answer or the tables.

    Raises:
        UserError: if no table has such a title.
    """
    arguments = parser().parse_args(argv)
    given = unpacked(arguments)
    results = results_of(arguments.results)
    plan = selected_plan(arguments)
    if arguments.table is None and (answer := kept_answer(arguments.results, results, plan)) is not None:
        print_answer(answer)
        return 0
    # Not at the top: what is kept, --help and errors in the records need not wait for numpy and pandas.
    from rollout_bench.analysis.timed.collection import collect

    collection = with_limits(collect(results, plan), results, plan)
    from rollout_bench.report.summary import summary_of

    made = summary_of(results, collection)
    if arguments.table is None:
        print_answer(made.answer)
        return print_errors(collection.damaged)
    text = made.parts_with(arguments.table)
    if not text.strip():
        problem = f"{given}: no table or note has {arguments.table!r} in its title, nor a table in its columns"
        raise UserError(problem, f"choose of {'; '.join(made.titles)}" if made.titles else "nothing is measured there")
    print(text, end="")
    return print_errors(collection.damaged)
