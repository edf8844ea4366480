"""A gate for builds: compare two folders, and decide whether results got worse by more than a margin."""

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Annotated, Literal
from xml.etree import ElementTree

from pydantic import Field, TypeAdapter
from scipy import special

from rollout_bench.analysis.stats.intervals import mean, t_interval
from rollout_bench.analysis.timed.baselines import valid_records
from rollout_bench.analysis.timed.comparison import Comparison
from rollout_bench.analysis.timed.experiments import TimedExperiment
from rollout_bench.analysis.timed.facts import load_facts
from rollout_bench.analysis.timed.launches import measured_launches
from rollout_bench.analysis.timed.pairs import typical_value
from rollout_bench.analysis.timed.rows import SET_BY_LOAD, Row
from rollout_bench.contracts.axes import name_of
from rollout_bench.contracts.fields import UtcTime
from rollout_bench.contracts.modes import mode_of
from rollout_bench.core.errors import UserError, did_you_mean, near_miss
from rollout_bench.core.files import LEAST, MOST
from rollout_bench.core.mappings import grouped
from rollout_bench.core.numbers import first_few, number, plain_percent, ratio, several
from rollout_bench.numbers.number import P99
from rollout_bench.numbers.registry import COMPARED, NUMBERS, MetricName
from rollout_bench.plan.config import ComparisonSettings
from rollout_bench.report.differences import Compared
from rollout_bench.report.notes import device_of, engine_of
from rollout_bench.report.parts import Findings
from rollout_bench.report.rendering import escaped, markdown_table
from rollout_bench.report.views import Column, View

Outcome = Literal["worse", "not worse", "undecided"]

STATUS: dict[Outcome, int] = {"worse": 1, "undecided": 4, "not worse": 0}
"""Exit status of a gate, by the first of these outcomes that one of its tests has."""

LEVEL = 0.025
"""Level of each of two gates on the same launches, the second with those that an undecided one asks for: together they
call a number of unchanged results worse, or one at the margin not worse, in at most 5 % of cases. All tests of a gate
share it equally (Bonferroni)."""

DRIFT = "Measured in another session than A, whose drift is part of the difference: before you act, measure both again."
"""Sentence of a gate that fails without alternating. Where sessions differ by 2 %, an unchanged build fails in 8 %."""

INTERVALS = (
    "A gate's intervals are not those that compare prints without a gate: all tests of a gate share an error of 5 %, "
    "and there each row has its own."
)
"""Sentence of a gate with several intervals."""

DEFAULT_MARGIN = 0.03

CONFIDENCE = 0.95
"""Confidence of the interval of B's value."""

MOST_PARTS = 5
"""Number of parts of a step that the Markdown block names for each experiment."""

MANY, TIMES = 100, 4
"""Launches of each side that nobody measures to decide a gate: more than the first, and than so many times those used.
Their spread is then too large for the margin."""

MOST_LAUNCHES = 1000
"""Number of launches beyond which no number is said."""

DISTANCE, POWER = 2 / 3, 0.85
"""A gate asks for so many launches that it decides with a chance of `POWER`, where the true change is `DISTANCE` of the
margin away from the margin: 5 % where 3 % are allowed. A build that did not change is further away."""

_OTHERS: dict[str, MetricName] = {
    **dict.fromkeys(
        ("ratio", "speed", "speedup", "throughput", "tok", "tokens_per_s", "tokens_per_second", "tps"),
        "output_tokens_per_s",
    ),
    **{name: f"{name}_s" for name in ("e2el", "itl", "tpot", "ttft")},
    "latency": "e2el_s",
}
"""What others call a number that is compared -> the number."""

_LIMIT = re.compile(r"\s*(?P<name>\w+)\s*(?P<sign>[<>])\s*(?P<margin>[+-]?\d+(\.\d+)?)\s*%\s*")


@dataclass(frozen=True)
class Limit:
    """A number and the margin by which it may get worse, as a fraction of its earlier value.

    `named` is whether the user named the number, so that it must be there.
    """

    number: MetricName
    margin: float
    named: bool = True

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
        default = "did you mean 'default'? Or " if near_miss(text, ["default"]) else ""
        example = _nearest_limit(text) or "step_time_s > 3%"
        raise UserError(
            f"--fail-if {text!r}: is no limit", f"{default}write a number and a margin in percent, '{example}'"
        )
    name, margin = found["name"], float(found["margin"]) / 100
    if name not in COMPARED:
        nearest = _nearest_limit(text)
        remedy = f"did you mean '{nearest}'?" if nearest else did_you_mean(name, COMPARED)
        raise UserError(f"--fail-if {text!r}: {name} is not compared", remedy)
    worse, sign = ("<", -1) if NUMBERS[name].better == "higher" else (">", 1)
    example = _example(name)
    if found["sign"] != worse or sign * margin < 0:
        better = NUMBERS[name].better
        raise UserError(f"--fail-if {text!r}: {name} is better the {better} it is", f"write '{example}'")
    if not 0 < abs(margin) < 1:
        raise UserError(f"--fail-if {text!r}: the margin has to be above 0 and below 100 %", f"write '{example}'")
    return Limit(name, abs(margin))


def _example(name: str, percent: float = 100 * DEFAULT_MARGIN) -> str:
    return f"{name} {'< -' if NUMBERS[name].better == 'higher' else '> '}{percent:g}%"


def _nearest_limit(text: str) -> str | None:
    """Return the limit that a text means which is none, by its first word and its number; None without such a word."""
    word, number = re.search(r"[A-Za-z]\w+", text), re.search(r"\d+(\.\d+)?", text)
    name = _OTHERS.get(word[0].lower()) or near_miss(word[0], COMPARED, 0.8) if word else None
    if word is None or name is None:
        return None
    percent = float(number[0]) if number else 0.0
    percent = 1 - percent if word[0].lower() in ("ratio", "speedup") and percent < 1 else percent
    percent = percent if "%" in text or percent >= 1 else round(100 * percent, 6)
    return _example(name, percent) if 0 < percent < 100 else _example(name)


def limits_of(texts: Sequence[str]) -> list[Limit]:
    """Return the limits in `texts`; `default` has each other number compared by default, with `DEFAULT_MARGIN`.

    Raises:
        UserError: one of them is no limit, or a number has two.
    """
    limits = [limit_of(text) for text in texts if text != "default"]
    named = Counter(limit.number for limit in limits)
    if twice := [name for name, count in named.items() if count > 1]:
        raise UserError(f"--fail-if: {twice[0]} has two limits", "leave one of them out")
    if "default" in texts:
        names = dict.fromkeys(name for names in ComparisonSettings().metrics.values() for name in names)
        limits += [Limit(name, DEFAULT_MARGIN, named=False) for name in names if name not in named]
    return limits


Bound = Annotated[float, Field(ge=0, lt=MOST)]
"""A bound, or a speed-up; a history may have been written by anybody."""


@dataclass(frozen=True)
class Measured:
    """B's own value: the geometric mean over its launches, in the unit of the number, with its interval.

    Values of two gates may be compared if `machine` and `load`, a digest of what defines the work, agree.
    """

    value: Annotated[float, Field(gt=LEAST, lt=MOST)]
    low: Bound
    high: Annotated[float, Field(gt=LEAST, lt=MOST)]
    machine: str
    load: str


CLOSE = "; the change is close to the margin, and more launches may not decide"


@dataclass(frozen=True)
class Finding:
    """One number of one experiment against its limit; the bounds are those of this gate, each one-sided.

    `speedup` is B over A, above 1 where B is better, from the `used` launches of B and of A. `launches` of each side
    are enough (`launches_to_decide`). `of_b` is None without bounds.
    """

    experiment: str
    mode: str
    number: MetricName
    margin: Annotated[float, Field(gt=0, lt=1)]
    outcome: Outcome
    speedup: Bound | None
    low: Bound | None
    high: Bound | None
    used: tuple[int, int]
    launches: int | None
    reason: str
    of_b: Measured | None = None

    @property
    def compared(self) -> str:
        """The speed-up with its bounds."""
        bounds = "" if self.low is None or self.high is None else f" [{ratio(self.low)}, {ratio(self.high)}]"
        return "not compared" if self.speedup is None else f"{ratio(self.speedup)}x{bounds}"

    @property
    def needs_too_many(self) -> bool:
        """Whether it is undecided, and as many launches as would decide are not worth measuring."""
        if self.outcome != "undecided" or self.low is None:
            return False
        return self.launches is None or self.launches > max(MANY, TIMES * min(self.used))

    @property
    def sentence(self) -> str:
        """The outcome, with its reason and what would decide it."""
        more = ""
        if self.outcome == "undecided" and self.low is not None:
            needed = f"more than {MOST_LAUNCHES:,} launches"
            if self.launches is not None:
                needed = f"about {several(self.launches, 'launch')}" if self.launches > min(self.used) else ""
            more = f"; {needed} of each side would decide" if needed else CLOSE
            more += ", too many to measure" if self.needs_too_many else ""
        return self.outcome + (f" ({self.reason})" if self.reason else "") + more

    def __str__(self) -> str:
        name = f"{self.experiment} ({self.mode}), {self.number}"
        return f"{name}: {self.compared}, {100 * self.margin:g} % allowed: {self.sentence}"


@dataclass(frozen=True)
class Gate:
    """A gate as --json writes it, and --history in a line.

    `a` and `b` are the folders as the user named them, with the engines of their compared launches, which `alternated`
    or not. `only_in_b` names experiments that A lacks. The worst of the `tests` come first.
    """

    when: UtcTime
    outcome: Outcome
    a: str
    engine_a: str
    b: str
    engine_b: str
    alternated: bool
    only_in_b: tuple[str, ...]
    tests: tuple[Finding, ...]


GATE = TypeAdapter(Gate)
"""Reads and writes a gate as JSON."""


def gate_of(made: Compared, limits: Sequence[Limit], a: str, b: str) -> Gate:
    """Return the gate of a comparison of `a` with `b`; raise `UserError` if nothing is compared."""
    tests = sorted(gate_outcomes(made, limits), key=lambda test: list(STATUS).index(test.outcome))
    pairs = [(other, row.experiment) for row in made.findings.rows if (other := row.against.other)]
    engine_a, engine_b = (
        ", ".join(dict.fromkeys(engine_of(record.environment) for each in side for record in valid_records(each)))
        for side in zip(*pairs, strict=True)
    )
    return Gate(
        when=datetime.now(UTC).isoformat(timespec="seconds"),
        outcome=outcome_of(tests),
        a=a,
        engine_a=engine_a,
        b=b,
        engine_b=engine_b,
        alternated=made.alternated,
        only_in_b=tuple(map(name_of, made.only_in_b)),
        tests=tuple(tests),
    )


def confidence_of(tests: int) -> float:
    """Return the confidence of the intervals of a gate with `tests` >= 1 tests: both bounds hold at `LEVEL` / tests."""
    return 1 - 2 * LEVEL / tests


def gate_outcomes(made: Compared, limits: Sequence[Limit]) -> list[Finding]:
    """Return each limit at each row that has its number, judged at the confidence of so many tests.

    A number that an experiment has in A, whose like B lacks, is undecided.

    Raises:
        UserError: nothing is compared, or a number that the user named is nowhere.
    """
    findings = made.findings
    found = _at_limits(findings.rows, limits)
    lost = [test for each in made.only_in_a for test in _lost(each, limits)]
    compared = {limit.number for _, limit, _ in found} | {test.number for test in lost}
    if absent := [limit.number for limit in limits if limit.named and limit.number not in compared]:
        raise UserError(f"--fail-if: no experiment has {absent[0]}", "leave it out, or measure a mode that has it")
    if not any(comparison.speedup for *_, comparison in found):
        reasons = dict.fromkeys(comparison.reason for *_, comparison in found if comparison.reason)
        raise UserError(
            f"--fail-if: nothing is compared: {first_few(reasons, separator='; ')}",
            "compare.csv (--out) has what both folders have",
        )
    comparison = findings.collection.comparison.model_copy(update={"confidence": confidence_of(len(found))})
    rows = replace(findings, collection=replace(findings.collection, comparison=comparison)).rows
    return [*(gate_outcome(*each, len(found)) for each in _at_limits(rows, limits)), *lost]


def _is_unproven(name: MetricName, found: Comparison) -> bool:
    """Return whether a number is a percentile that launches have too few requests for."""
    return name == P99 and found.speedup is None


def _lost(of_a: TimedExperiment, limits: Sequence[Limit]) -> Iterator[Finding]:
    names = {name for launch in measured_launches(of_a) if launch.valid for name in launch.values}
    default = ComparisonSettings().metrics_of(of_a.mode)
    for limit in (limit for limit in limits if limit.number in names and (limit.named or limit.number in default)):
        reason = "B has no such experiment, A has it"
        unknown = (None, None, None, (0, len(of_a.records)), None)
        yield Finding(name_of(of_a), of_a.mode, limit.number, limit.margin, "undecided", *unknown, reason)


def _at_limits(rows: Sequence[Row], limits: Sequence[Limit]) -> list[tuple[Row, Limit, Comparison]]:
    """Return each number that has a limit, without those that `default` has and no number of launches would decide."""
    numbers = {limit.number: limit for limit in limits}
    return [
        (row, numbers[name], found)
        for row in rows
        for name, found in row.comparisons.items()
        if name in numbers and (numbers[name].named or not (found.reason == SET_BY_LOAD or _is_unproven(name, found)))
    ]


def gate_outcome(row: Row, limit: Limit, comparison: Comparison, tests: int) -> Finding:
    """Return the outcome of a comparison in a gate of so many tests, whose confidence is `confidence_of` them."""
    least, low, high, half = limit.least_speedup, comparison.low, comparison.high, comparison.half_width
    outcome: Outcome = "undecided"
    if low is not None and high is not None:
        outcome = "worse" if high < least else "not worse" if low > least else "undecided"
    used = comparison.launches_used
    asked = None if half is None else launches_to_decide(half, min(used), tests, -math.log(least))
    return Finding(
        experiment=name_of(row.experiment),
        mode=row.experiment.mode,
        number=limit.number,
        margin=limit.margin,
        outcome=outcome,
        speedup=comparison.speedup,
        low=low,
        high=high,
        used=used,
        launches=asked,
        reason=comparison.reason,
        of_b=None if low is None else _measured(row, limit.number, comparison.of_passes),
    )


def launches_to_decide(half_width: float, launches: int, tests: int, margin: float) -> int | None:
    """Return the launches of each side with which one of `tests` decides as `POWER` says; None if it takes too many.

    It depends on the spread and not on the ratio, so measuring that many favours no outcome (Stein, Annals of
    Mathematical Statistics 16, 1945): n = m ((1 + t(POWER) / t(1 - LEVEL / tests)) h / (DISTANCE margin))^2, where m
    launches have the half width h, with 2 m - 2 degrees of freedom.

    Args:
        half_width: half of the interval's width with `launches` >= 2 of each side, as log ratio.
        margin: as log ratio.
    """
    power, level = special.stdtrit(2 * launches - 2, [POWER, 1 - LEVEL / tests])
    wider = 1 + float(power / level)
    needed = math.ceil(launches * (wider * half_width / (DISTANCE * margin)) ** 2)
    return needed if needed <= MOST_LAUNCHES else None


def launches_of_b(tests: Sequence[Finding], most: int) -> int:
    """Return the launches of B alone, `most` at most, with which all `tests` would be as precise as they ask for.

    For n of each side, so that 1/a + 1/b = 2/n; those of A stay as they are.
    """
    return max(most if not test.launches else _beside(test.launches, test.used[1], most) for test in tests)


def _beside(launches: int, of_a: int, most: int) -> int:
    share = 2 / launches - 1 / of_a
    return min(most, math.ceil(1 / share)) if share > 0 else most


def _measured(row: Row, name: MetricName, typical: bool) -> Measured | None:
    launches = [launch for launch in row.used if name in launch.values]
    logs = [math.log(typical_value(name, each) if typical else each.values[name]) for each in launches]
    if (ends := t_interval(logs, CONFIDENCE)) is None:
        return None
    record = launches[0].record
    machine = f"{device_of(record.environment)}, {several(record.environment.cpu_cores, 'core')}"
    work = json.dumps([load_facts(record), record.spec.mode_spec.model_dump(mode="json")], sort_keys=True)
    load = hashlib.sha256(work.encode()).hexdigest()[:8]
    return Measured(math.exp(mean(logs)), math.exp(ends[0]), math.exp(ends[1]), machine, load)


def outcome_of(tests: Sequence[Finding]) -> Outcome:
    """Return the outcome of a gate: the first of `STATUS` that one of its tests has."""
    return next(outcome for outcome in STATUS if any(test.outcome == outcome for test in tests))


def lines_of(gate: Gate) -> list[str]:
    """Return the sentence of the gate with its exit status, a line for each test, the worst first, and notes.

    Numbers that are not compared, for one reason, share a line.
    """
    compared = [test for test in gate.tests if test.speedup is not None]
    without = grouped((test.sentence, test) for test in gate.tests if test.speedup is None)
    lines = [*map(str, compared), *(_not_compared(reason, tests) for reason, tests in without.items())]
    lines += [f"not tested: {name}, which is only in {gate.b}" for name in gate.only_in_b]
    head = f"{_sentence(gate)} Exit status {STATUS[gate.outcome]}."
    return [head, *(f"- {line}" for line in lines), *_intervals(gate), *_way_out(gate)]


def _intervals(gate: Gate) -> list[str]:
    """Return why its intervals are not those of a table; empty where they are."""
    return [INTERVALS] if sum(test.low is not None for test in gate.tests) > 1 else []


def _not_compared(reason: str, tests: Sequence[Finding]) -> str:
    names = first_few(dict.fromkeys(f"{test.experiment} ({test.mode})" for test in tests))
    return f"{names}, not compared in {first_few(dict.fromkeys(test.number for test in tests), 4)}: {reason}"


def _way_out(gate: Gate) -> list[str]:
    """Return what to do instead of measuring very many launches; empty if no test needs so many."""
    if not any(test.needs_too_many for test in gate.tests):
        return []
    together = "" if gate.alternated else "measure both in one session, in turn (docs/precision.md), "
    return [f"Instead of so many launches, {together}quieten the machine, or allow more."]


def _sentence(gate: Gate) -> str:
    count, of = sum(test.outcome == gate.outcome for test in gate.tests), several(len(gate.tests), "test")
    drift = "" if gate.alternated else f" {DRIFT}"
    return {
        "worse": f"The gate fails: B is worse than A by more than the margin in {count} of {of}.{drift}",
        "undecided": f"The gate is undecided: whether B is worse by more than the margin is open in {count} of {of}.",
        "not worse": f"The gate passes: B is shown not to be worse than A by more than the margin in {of}.",
    }[gate.outcome]


def markdown_of(gate: Gate, findings: Findings) -> str:
    """Return the gate as a block for a pull request: conclusion, sides, tests, and where the time of a step went."""
    tests = [
        (f"{each.experiment} ({each.mode})", each.number, each.compared, plain_percent(each.margin), each.sentence)
        for each in gate.tests
    ]
    lacking = f" Not tested, because A lacks it: {', '.join(gate.only_in_b)}." if gate.only_in_b else ""
    sides = f"B is {gate.b} ({gate.engine_b}), A is {gate.a} ({gate.engine_a}). Below 1x, B is worse.{lacking}"
    blocks = [f"**{_sentence(gate)}**", escaped(sides), _table("number", "speed-up", "margin", "outcome", lines=tests)]
    blocks += map(escaped, (*_intervals(gate), *_way_out(gate)))
    if parts := [line for row in findings.rows for line in _parts(row)]:
        about = "Where the time of a step went, the largest change first (means over launches, without intervals)"
        table = _table("part", "A", "B", "change", lines=parts)
        blocks += [f"<details><summary>{about}</summary>", table, "</details>"]
    return "\n\n".join(blocks) + "\n"


def _table(*headers: str, lines: Sequence[tuple[str, ...]]) -> str:
    columns = (Column[object](each, words=each in ("number", "part", "outcome")) for each in headers)
    return markdown_table(View("", (Column[object]("experiment", words=True), *columns), tuple(lines)))


def _parts(row: Row) -> Iterator[tuple[str, ...]]:
    """Yield the cells of the parts of a step whose time changed most from A to B; none if requests arrive at a rate."""
    if (other := row.against.other) is None or mode_of(row.experiment.mode).has_loads:
        return
    theirs, ours = (replace(row, launches=measured_launches(side)).values for side in (other, row.experiment))
    changes = {
        name: ours[name] - theirs[name] for name in NUMBERS if NUMBERS[name].part and name in {*ours} & {*theirs}
    }
    for name in sorted(changes, key=lambda name: -abs(changes[name]))[:MOST_PARTS]:
        sides = (f"{number(each[name], 3)} s" for each in (theirs, ours))
        name_of_row = f"{name_of(row.experiment)} ({row.experiment.mode})"
        yield name_of_row, name.removesuffix("_s"), *sides, f"{'+' * (changes[name] > 0)}{number(changes[name], 3)} s"


def json_of(gate: Gate, indent: int | None = 1) -> str:
    """Return the gate as JSON; without an `indent`, as a line of a history."""
    return GATE.dump_json(gate, indent=indent).decode() + "\n"


def junit_of(gate: Gate) -> str:
    """Return the gate as JUnit XML: a case for each test, which fails if it is worse and is skipped if undecided."""
    suite = ElementTree.Element("testsuite", name="rollout-bench compare", tests=str(len(gate.tests)))
    for test in gate.tests:
        case = ElementTree.SubElement(suite, "testcase", classname=f"{test.mode}.{test.experiment}", name=test.number)
        if test.outcome != "not worse":
            kind = "failure" if test.outcome == "worse" else "skipped"
            ElementTree.SubElement(case, kind, message=str(test))
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"
