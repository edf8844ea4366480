"""Compare two results folders: two engines, two machines, or two runs of the same experiments.

Speed-ups are B relative to A. The folders were not measured interleaved, so drift between them is part of the
difference.
"""

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from rollout_bench.commands.groups import NAME
from rollout_bench.core.errors import UserError, print_errors
from rollout_bench.core.files import folder_named, write_whole
from rollout_bench.core.interrupts import status_of
from rollout_bench.core.locks import append_whole
from rollout_bench.core.numbers import share_meant
from rollout_bench.core.options import Parser
from rollout_bench.numbers.registry import COMPARED, NUMBERS, MetricName
from rollout_bench.plan.config import ComparisonSettings

OPTIONS = {
    "metrics": "metric",
    "confidence": "confidence",
    "relevant_difference": "relevant-difference",
}
"""Field of the settings -> the option that sets it."""

OUTPUTS = {
    "json": "write the outcome of the gate as JSON",
    "junit": "write the outcome of the gate as JUnit XML",
    "markdown": "write a block for a pull request: conclusion, tests, and where the time of a step went",
    "history": "append the gate to this file of JSON lines, which `rollout-bench history` reads",
}
"""Option of a gate that names a file -> its purpose."""

SUMMARY = "GITHUB_STEP_SUMMARY"
"""Variable that names the file to which a gate appends its Markdown block."""


def parser() -> Parser:
    """Return the argument parser."""
    default = ComparisonSettings()
    of_modes = [f"{mode} {' '.join(names)}" for mode, names in default.metrics.items()]
    parser = Parser(
        prog="rollout-bench compare",
        description=__doc__,
        epilog=f"Example: `{NAME} compare baseline.tar.xz results --fail-if 'output_tokens_per_s < -3%'`. "
        "Exit status: 0 when the folders are compared, 1 on an error, 2 on an invalid option, 3 when they are "
        "compared without damaged records, which are listed on stderr. With --fail-if: 0 when B is not worse, 1 when "
        "it is worse, 2 on an error, 3 when damaged records were left out, 4 when the launches do not decide it.",
    )
    parser.add_argument("a", type=Path, metavar="A", help="the earlier results: folder, summary kept in one, or pack")
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
        metavar="METRIC",
        help="metric to compare, of docs/reference/numbers.csv; can be given several times "
        f"(default: {'; '.join(of_modes)})",
    )
    parser.add_argument(
        "--confidence", metavar="SHARE", help=f"confidence of each interval (default: {default.confidence})"
    )
    parser.add_argument(
        "--relevant-difference",
        metavar="SHARE",
        help=f"speed-ups closer to 1 are never marked ^ or v (default: {default.relevant_difference})",
    )
    parser.add_argument(
        "--out", type=folder_named, metavar="DIR", help="write compare.md and compare.csv to this folder"
    )
    gate = parser.add_argument_group(
        "gate",
        "For builds: the exit status says whether B is worse by more than a margin.",
    )
    gate.add_argument(
        "--fail-if",
        action="append",
        metavar="LIMIT",
        help="a number and its margin, such as 'output_tokens_per_s < -3%%' or 'step_time_s > 3%%'; several times, or "
        "`default`: each number that is compared by default, 3 %%",
    )
    gate.add_argument(
        "--until-decided",
        type=int,
        metavar="MOST",
        help="first measure as many launches of B, the results of this folder, as their spread asks for, at most MOST; "
        "then test once",
    )
    for name, purpose in OUTPUTS.items():
        gate.add_argument(f"--{name}", type=Path, metavar="FILE", help=purpose)
    return parser


def main(argv: Sequence[str]) -> int:
    """Read and compare both folders, then write the result; exit status 2 for an error of a gate."""
    arguments = parser().parse_args(argv)
    if arguments.fail_if is None:
        for name in (name for name in ("until_decided", *OUTPUTS) if getattr(arguments, name)):
            raise UserError(
                f"--{name.replace('_', '-')}: there is no gate without --fail-if",
                "add --fail-if default, or leave it out",
                2,
            )
        return _compare(arguments)
    try:
        return _compare(arguments)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except Exception:  # status 1 would say that B is worse
        traceback.print_exc()
        print("the gate did not end\n  -> report this error: B is not shown to be worse", file=sys.stderr)
        return 2


def _compare(arguments: argparse.Namespace) -> int:
    # Not at the top: --help need not wait for scipy and pandas.
    from rollout_bench.report import gate
    from rollout_bench.report.conclusions import run_arguments
    from rollout_bench.report.differences import compare_folders

    limits = gate.limits_of(arguments.fail_if or ())
    if limits:
        arguments.metric = [limit.number for limit in limits if limit.named]
    compared = settings(arguments, beside_default=not all(limit.named for limit in limits))
    if arguments.until_decided is not None and arguments.until_decided < 1:
        raise UserError(f"--until-decided {arguments.until_decided}: is no number of launches", "give 1 or more")
    compare = partial(compare_folders, arguments.a, arguments.b, compared, arguments.differ, arguments.all)
    made = compare()
    if arguments.until_decided:
        tests = gate.gate_outcomes(made, limits)
        launches = gate.launches_of_b(tests, arguments.until_decided)
        if launches > min(test.used[0] for test in tests):
            _measure(arguments.b, run_arguments([f"launches={launches}"], made.findings.collection))
            made = compare()
    if arguments.out:
        write_whole(arguments.out / "compare.md", made.markdown.encode())
        write_whole(arguments.out / "compare.csv", made.csv.encode())
    if not limits:
        print(made.text, end="")
        return print_errors(made.damaged)
    decision = gate.gate_of(made, limits, str(arguments.a), str(arguments.b))
    print(*gate.lines_of(decision), "", made.text, sep="\n", end="")
    block = gate.markdown_of(decision, made.findings) if arguments.markdown or os.environ.get(SUMMARY) else ""
    texts = {"json": gate.json_of(decision), "junit": gate.junit_of(decision), "markdown": block}
    for name, text in texts.items():
        if file := getattr(arguments, name):
            write_whole(file, text.encode())
    for file, text in ((arguments.history, gate.json_of(decision, None)), (os.environ.get(SUMMARY), block)):
        if file:
            append_whole(Path(file), text)
    return gate.STATUS[decision.outcome] or print_errors(made.damaged)


def _measure(folder: Path, words: Sequence[str]) -> None:
    from rollout_bench.plan.schedule import RESULTS

    if folder.resolve() != RESULTS.resolve():
        raise UserError(f"--until-decided: {folder} is not results/ of this folder", "call it where B is measured")
    status = status_of([sys.executable, "-m", "rollout_bench", *words])
    if status:
        raise UserError(f"--until-decided: the run ended with status {status}", "see its messages")


def settings(arguments: argparse.Namespace, *, beside_default: bool = False) -> ComparisonSettings:
    """Return the settings from `arguments`, with defaults for the rest; raise `UserError` for an invalid value.

    `beside_default`: whether modes keep their default metrics beside those of `arguments`.
    """
    asked: list[MetricName] = arguments.metric or []
    of_modes = {
        mode: list(
            dict.fromkeys([*(names if beside_default else ()), *(n for n in asked if NUMBERS[n].mode in ("", mode))])
        )
        for mode, names in ComparisonSettings().metrics.items()
    }
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
        field, text = str(first["loc"][0]), str(first["input"])
        message = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
        share = share_meant(text)
        help_of_it = "see rollout-bench compare --help"
        remedy = f"write {share}" if share and _is_valid(field, share) else help_of_it
        raise UserError(f"--{OPTIONS[field]}: {text} {message}", remedy) from None


def _is_valid(field: str, value: str) -> bool:
    with suppress(ValidationError):
        return bool(ComparisonSettings.model_validate({field: value}))
    return False
