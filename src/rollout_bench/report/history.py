"""A history of gates: reading it, the entry from which on a number is worse, and a chart of each number."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from pydantic import ValidationError

from rollout_bench.analysis.stats.changepoint import Fall, fall_of
from rollout_bench.core.errors import UserError
from rollout_bench.core.files import read_regular
from rollout_bench.core.mappings import grouped
from rollout_bench.core.numbers import MISSING, first_few, plain_percent, ratio
from rollout_bench.numbers.registry import NUMBERS
from rollout_bench.report.figures.charts import PALETTE, Bar, Chart, Rows, figure_settings, svg_figure
from rollout_bench.report.gate import CONFIDENCE, GATE, INTERVALS, Finding, Gate, Limit, Measured
from rollout_bench.report.parts import Picture
from rollout_bench.report.prose import Section
from rollout_bench.report.rendering import terminal
from rollout_bench.report.views import Column, View

MOST_ENTRIES = 30
"""Number of entries of a chart, the newest ones."""

COLUMNS = (
    *(Column[object](header, words=True) for header in ("when, UTC", "engine of B")),
    *(Column[object](header) for header in ("value of B", "interval", "speed-up over A")),
    Column[object]("B against A", words=True),
)


@dataclass(frozen=True)
class Entry:
    """One number of one gate, with the value of its B."""

    gate: Gate
    test: Finding
    of_b: Measured


def read_history(path: Path) -> list[Gate]:
    """Return the gates in the file, in its order.

    Raises:
        UserError: the file cannot be read, has no gate, or has a damaged line.
    """
    gates: list[Gate] = []
    try:
        for line in read_regular(path, "name a file that rollout-bench compare --history wrote").splitlines():
            gates.append(GATE.validate_json(line))
    except ValidationError as error:
        first = error.errors()[0]
        problem = ": ".join(map(str, (path, f"line {len(gates) + 1}", *first["loc"], first["msg"])))
        raise UserError(problem, "restore the file, or name one that rollout-bench compare --history wrote") from None
    if not gates:
        raise UserError(f"{path}: has no entry", "rollout-bench compare A B --fail-if default --history FILE adds one")
    return gates


def series_of(gates: Sequence[Gate]) -> list[list[Entry]]:
    """Return the entries whose values may be compared: one number of one experiment, with one machine and load.

    The same launches compared again are no further entry, since a changepoint needs values of separate sessions.
    """
    measured = ((gate, test, test.of_b) for gate in gates for test in gate.tests if test.of_b)
    entries = [Entry(*each) for each in measured]
    numbers = grouped(
        ((e.test.experiment, e.test.mode, e.test.number, e.of_b.machine, e.of_b.load), e) for e in entries
    )
    return [
        [same[0] for same in grouped(((e.gate.engine_b, e.of_b), e) for e in series).values()]
        for series in numbers.values()
    ]


def lasting_fall(series: Sequence[Entry]) -> Fall | None:
    """Return the lasting fall of a series by more than the margin, in logarithms of the speed-up; None without one.

    Each entry is a value: their spread has what differs between sessions, which the intervals of the entries lack.
    """
    test = series[0].test
    sign = 1 if NUMBERS[test.number].better == "higher" else -1
    logs = [sign * math.log(each.of_b.value) for each in series]
    return fall_of(logs, -math.log(Limit(test.number, test.margin).least_speedup), CONFIDENCE)


def conclusion_of(series: Sequence[Entry]) -> str:
    """Return what the history of a number shows, without the number's name."""
    fall = lasting_fall(series)
    if fall is None:
        if len(series) == 1:
            return "not judged, with one session of B: the same launches compared again are no further one"
        return f"not shown to get worse from one B to the next, in {len(series)} sessions"
    first = series[fall.first].gate
    value, low, high = (ratio(math.exp(fall.shift + off)) for off in (0.0, -fall.half_width, fall.half_width))
    before = f"the mean of the {fall.first} before it"
    return f"worse from {first.engine_b} on ({first.when[:10]}): {value}x [{low}, {high}] of {before}"


def name_of(test: Finding) -> str:
    """Return the names of a number and of its experiment."""
    return f"{test.number} of {test.experiment} ({test.mode})"


def text_of(gates: Sequence[Gate]) -> str:
    """Return conclusions and a table for each number of each experiment, for the terminal."""
    lines = grouped((name_of(test), _cells(test, gate)) for gate in gates for test in gate.tests)
    known = {name_of(test) for gate in gates for test in gate.tests if test.of_b}
    tables = [View(title, COLUMNS, tuple(cells)) for title, cells in lines.items() if title in known]
    all_series = series_of(gates)
    by_conclusion = grouped((conclusion_of(series), name_of(series[0].test)) for series in all_series)
    found = [
        f"{names[0]} is {conclusion}."
        if len(names) == 1
        else f"{len(names)} numbers are {conclusion}: {first_few(names)}."
        for conclusion, names in by_conclusion.items()
    ]
    if lacking := [title for title in lines if title not in known]:
        found.append(f"Without a value of B, so without a table: {first_few(lacking)}.")
    if any(each.test.outcome == "worse" for series in all_series if lasting_fall(series) is None for each in series):
        found.append("The last column compares the B of a gate with its A.")
    if any(sum(test.low is not None for test in gate.tests) > 1 for gate in gates):
        found.append(INTERVALS)
    return terminal("", tables, [], [Section("Conclusion", tuple(found))])


def _cells(test: Finding, gate: Gate) -> tuple[str, ...]:
    of, found = NUMBERS[test.number], test.of_b
    value = (of.text(found.value), f"[{of.text(found.low)}, {of.text(found.high)}]") if found else (MISSING, MISSING)
    return gate.when[:16].replace("T", " "), gate.engine_b, *value, test.compared, test.outcome


def pictures_of(gates: Sequence[Gate]) -> Iterator[Picture]:
    """Yield a chart for each number of each experiment; the same bytes for the same history."""
    with figure_settings():
        for place, series in enumerate(series_of(gates), 1):
            test, chart = series[0].test, _chart(series)
            name = re.sub(r"[^\w.-]+", "-", f"{place}-{test.number}-{test.experiment}-{test.mode}")
            yield Picture(name, chart.title, svg_figure(chart, where=series[0].of_b.machine))


def _chart(series: Sequence[Entry]) -> Chart:
    of, fall = NUMBERS[series[0].test.number], lasting_fall(series)
    start = len(series) if fall is None else fall.first
    before = math.exp(fmean(math.log(each.of_b.value) for each in series[:start]))
    bars = []
    for place, each in enumerate(series):
        value, low, high = (of.factor * end for end in (each.of_b.value, each.of_b.low, each.of_b.high))
        label, colour = each.gate.when[:16].replace("T", " "), PALETTE[0] if place < start else PALETTE[5]
        bars.append(Bar(label, each.gate.engine_b, value, (low, high), text=of.text(each.of_b.value), colour=colour))
    bars = bars[-MOST_ENTRIES:]
    ends = [end for bar in bars for end in bar.span or ()]
    room = 0.1 * (max(ends) - min(ends))
    rows = Rows("", of.header, bars, (min(ends) - room, max(ends) + room), of.factor * before)
    marks = (
        f"Diamond: geometric mean over the launches of B. Band: its {plain_percent(CONFIDENCE)} interval. "
        "Line: the mean of the entries before a fall, else of all. The axis does not begin at zero."
    )
    content = f"{name_of(series[0].test)}: the last {len(bars)} of {len(series)} gates"
    title = conclusion_of(series)
    return Chart(title[0].upper() + title[1:], content, marks, [rows], {})
