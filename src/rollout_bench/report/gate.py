"""A gate for builds: whether results got worse by more than a margin, from a comparison of two folders."""

import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal
from xml.etree import ElementTree

from rollout_bench.analysis.timed.comparison import Comparison
from rollout_bench.analysis.timed.rows import Row
from rollout_bench.contracts.axes import name_of
from rollout_bench.core.errors import UserError, did_you_mean
from rollout_bench.core.numbers import ratio, several
from rollout_bench.numbers.registry import COMPARED, NUMBERS
from rollout_bench.plan.config import ComparisonSettings
from rollout_bench.report.parts import Findings

Outcome = Literal["worse", "not worse", "undecided"]

STATUS: dict[Outcome, int] = {"worse": 1, "undecided": 4, "not worse": 0}
"""Exit status of a gate, by the first of these outcomes that one of its tests has."""

ERROR_STATUS = 2
"""Exit status of a gate that could not be tested."""

LEVEL = 0.05
"""Greatest chance that a gate whose results did not change calls any of its numbers worse, or those at the margin not
worse. All tests of a gate share it equally (Bonferroni)."""

DEFAULT_MARGIN = 0.03

MOST_LAUNCHES = 100
"""Number of launches beyond which no number is said."""

_LIMIT = re.compile(r"\s*(?P<name>\w+)\s*(?P<sign>[<>])\s*(?P<margin>[+-]?\d+(\.\d+)?)\s*%\s*")


@dataclass(frozen=True)
class Limit:
    """A number and the margin by which it may get worse, as a fraction of its earlier value."""

    number: str
    margin: float

    @property
    def least_speedup(self) -> float:
        """The speed-up at the margin: of throughput 1 - margin, of a time 1 / (1 + margin)."""
        return 1 - self.margin if NUMBERS[self.number].better == "higher" else 1 / (1 + self.margin)


def limit_of(text: str) -> Limit:
    """Return the limit in `output_tokens_per_s < -3%` or `step_time_s > 3%`.

    Raises:
        UserError: it has no such form, the number is not compared, or it gets better in that direction.
    """
    found = _LIMIT.fullmatch(text)
    if found is None:
        raise UserError(
            f"--fail-if {text!r}: is no limit", "write a number and a margin in percent, 'step_time_s > 3%'"
        )
    name, margin = found["name"], float(found["margin"]) / 100
    if name not in COMPARED:
        raise UserError(f"--fail-if {text!r}: {name} is not compared", did_you_mean(name, COMPARED))
    worse, sign = ("<", -1) if NUMBERS[name].better == "higher" else (">", 1)
    if found["sign"] != worse or sign * margin < 0 or sign * margin >= 1:
        better = NUMBERS[name].better
        example = f"{name} {worse} {'-' if sign < 0 else ''}{100 * DEFAULT_MARGIN:g}%"
        raise UserError(f"--fail-if {text!r}: {name} is better the {better} it is", f"write '{example}'")
    return Limit(name, abs(margin))


def limits_of(texts: Sequence[str]) -> list[Limit]:
    """Return the limits in `texts`; `default` has each number that is compared by default, with `DEFAULT_MARGIN`.

    Raises:
        UserError: one of them is no limit, or a number has two.
    """
    names = dict.fromkeys(name for names in ComparisonSettings().metrics.values() for name in names)
    default = [Limit(name, DEFAULT_MARGIN) for name in names]
    limits = [limit for text in texts for limit in (default if text == "default" else [limit_of(text)])]
    twice = [name for name, count in Counter(limit.number for limit in limits).items() if count > 1]
    if twice:
        raise UserError(f"--fail-if: {twice[0]} has two limits", "leave one of them out")
    return limits


@dataclass(frozen=True)
class Finding:
    """One number of one experiment against its limit; the bounds are those of this gate, each one-sided.

    `speedup` is B over A, above 1 where B is better. `launches` would decide it, if the ratio stays as it is; None if
    it is decided, or if they are more than `MOST_LAUNCHES`.
    """

    experiment: str
    mode: str
    number: str
    margin: float
    outcome: Outcome
    speedup: float | None
    low: float | None
    high: float | None
    launches: int | None
    reason: str

    def __str__(self) -> str:
        bounds = "" if self.low is None or self.high is None else f" [{ratio(self.low)}, {ratio(self.high)}]"
        measured = "not compared" if self.speedup is None else f"{ratio(self.speedup)}x{bounds}"
        more = f"; about {several(self.launches, 'launch')} of each side would decide" if self.launches else ""
        why = f" ({self.reason})" if self.reason else ""
        return (
            f"{self.outcome}: {self.experiment} ({self.mode}), {self.number}: {measured}, "
            f"{100 * self.margin:g} % allowed{why}{more}"
        )


def confidence_of(tests: int) -> float:
    """Return the confidence of the intervals of a gate with `tests` >= 1 tests: both bounds hold at `LEVEL` / tests."""
    return 1 - 2 * LEVEL / tests


def tested(findings: Findings, limits: Sequence[Limit]) -> list[Finding]:
    """Return each limit at each row that has its number, judged at the confidence of so many tests.

    Raises:
        UserError: nothing is compared.
    """
    found = _at_limits(findings.rows, limits)
    if not any(comparison.speedup for *_, comparison in found):
        names = ", ".join(limit.number for limit in limits)
        raise UserError(
            f"--fail-if: no experiment in both folders has {names}", "compare.csv (--out) has what they have"
        )
    comparison = findings.collection.comparison.model_copy(update={"confidence": confidence_of(len(found))})
    rows = replace(findings, collection=replace(findings.collection, comparison=comparison)).rows
    return [finding(*each) for each in _at_limits(rows, limits)]


def _at_limits(rows: Sequence[Row], limits: Sequence[Limit]) -> list[tuple[Row, Limit, Comparison]]:
    numbers = {limit.number: limit for limit in limits}
    return [(row, numbers[name], found) for row in rows for name, found in row.comparisons.items() if name in numbers]


def finding(row: Row, limit: Limit, comparison: Comparison) -> Finding:
    """Return the outcome of a comparison whose confidence is `confidence_of` this gate's tests."""
    least, low, high, speedup = limit.least_speedup, comparison.low, comparison.high, comparison.speedup
    outcome: Outcome = "undecided"
    launches = None
    if low is not None and high is not None and speedup is not None:
        outcome = "worse" if high < least else "not worse" if low > least else "undecided"
        away, half = abs(math.log(speedup / least)), comparison.half_width
        if outcome == "undecided" and half is not None and away > 0:
            # the half width falls with the square root of the launches
            needed = math.ceil(min(comparison.launches_used) * (half / away) ** 2)
            launches = needed if needed <= MOST_LAUNCHES else None
    name = name_of(row.experiment)
    return Finding(
        name, row.experiment.mode, limit.number, limit.margin, outcome, speedup, low, high, launches, comparison.reason
    )


def outcome_of(tests: Sequence[Finding]) -> Outcome:
    """Return the outcome of a gate: the first of `STATUS` that one of its tests has."""
    return next(outcome for outcome in STATUS if any(test.outcome == outcome for test in tests))


def lines_of(tests: Sequence[Finding]) -> list[str]:
    """Return the sentence of the gate and a line for each test, the worst first."""
    order = list(STATUS)
    head = {
        "worse": "The gate fails: B is worse than A by more than the margin.",
        "undecided": "The gate is undecided: the launches do not show whether B is worse by more than the margin.",
        "not worse": "The gate passes: B is shown not to be worse than A by more than the margin.",
    }[outcome_of(tests)]
    return [head, *(f"- {test}" for test in sorted(tests, key=lambda test: order.index(test.outcome)))]


def json_of(tests: Sequence[Finding]) -> str:
    """Return the gate as JSON."""
    return json.dumps({"outcome": outcome_of(tests), "tests": [asdict(test) for test in tests]}, indent=1) + "\n"


def junit_of(tests: Sequence[Finding]) -> str:
    """Return the gate as JUnit XML: a case for each test, which fails if it is worse and is skipped if undecided."""
    suite = ElementTree.Element("testsuite", name="rollout-bench compare", tests=str(len(tests)))
    for test in tests:
        case = ElementTree.SubElement(suite, "testcase", classname=f"{test.mode}.{test.experiment}", name=test.number)
        if test.outcome != "not worse":
            kind = "failure" if test.outcome == "worse" else "skipped"
            ElementTree.SubElement(case, kind, message=str(test))
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"
