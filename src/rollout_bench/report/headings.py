"""Columns of the tables: heading, cell, definition; and tables as plain text cells."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from rollout_bench.analysis.timed.comparison import MARKS, Comparison
from rollout_bench.analysis.timed.experiments import Selected
from rollout_bench.analysis.timed.latencies import LAST, PERCENTILES, Distribution, more_for
from rollout_bench.analysis.timed.rows import Row
from rollout_bench.contracts.axes import DEFAULT_SETTING
from rollout_bench.contracts.record import Launched
from rollout_bench.contracts.spec import devices_of_rate, set_apart
from rollout_bench.core.numbers import MISSING, count, number, plain_percent, ratio, several
from rollout_bench.numbers.number import Number
from rollout_bench.numbers.registry import NUMBERS, MetricName
from rollout_bench.plan.config import ComparisonSettings

UNKNOWN = "unknown"
"""Value of platform, quantization and engine in records of a server that somebody else started."""

Line = dict[str, Any]
"""One line of the table (`analysis.tables.COLUMNS`), with missing numbers as None. Additional keys: by metric,
`comparisons` and `footnotes` (a number or None); by measure, `distributions` of its sequences; `several_devices` (True
if a launch needs more than one, else None); `empty_because`, the reason for missing numbers, else empty.
"""


@dataclass(frozen=True)
class Column:
    """A column; `cell` returns the text for a line. `words`: it is left-aligned.

    If `known` is set, tables without any value of that name omit the column.
    """

    header: str
    definition: str
    cell: Callable[[Line], str]
    words: bool = False
    known: str = ""


_RATIO_OF_PAIRS = (
    "It is the geometric mean of the ratios of launches with the same index, so the ratio of two means may differ in "
    "the last digits. The baseline has the same mode, platform, model, quant, workload, setting and engine version, "
    "except for the changes in `baseline`."
)

_RATIO_OF_TYPICAL = (
    "It compares typical passes, and is the geometric mean of the ratios of launches with the same index. If engines "
    "were interleaved, the ratio of two launches is the mean ratio of the middle 60 % of the rounds. Otherwise it is "
    "the ratio of two means, each over the middle 60 % of the passes of a launch. These means are on the logarithmic "
    "scale, so the ratio of two means in the table may differ. The baseline has the same mode, platform, model, quant, "
    "workload, setting and engine version, except for the changes in `baseline`."
)

_RATIO_APART = (
    "Each side is the geometric mean over its launches. The baseline has the same mode, platform, model, "
    "quant, workload and setting, and was measured at another time or place."
)


def _text(field: str) -> Callable[[Line], str]:
    return lambda line: line[field] or MISSING


def _number(field: str, digits: int = 4, factor: float = 1) -> Callable[[Line], str]:
    return lambda line: number(None if line.get(field) is None else factor * line[field], digits)


def number_columns(table: str) -> tuple[Column, ...]:
    """Return the columns of the numbers that `table` shows, in the order of the registry."""
    return tuple(_column(number) for number in NUMBERS.values() if number.table == table)


def _column(number: Number) -> Column:
    return Column(number.header, number.definition, lambda line: number.text(line.get(number.name)))


def launch_counts(experiment: Selected[Launched]) -> Line:
    """Return the values for `LAUNCHES` of an experiment of any mode, by their names in summary.csv."""
    return {
        "launches_valid": sum(record.valid for record in experiment.records),
        "launches_measured": len(experiment.records),
        "launches_planned": experiment.planned,
    }


def _launches(line: Line) -> str:
    counts = [line.get(field) for field in ("launches_valid", "launches_measured", "launches_planned")]
    return "/".join(str(amount) for amount in counts if amount is not None) or MISSING


def speedup_columns(
    metrics: Iterable[MetricName],
    settings: ComparisonSettings,
    apart: bool = False,
    typical: Collection[MetricName] = (),
) -> tuple[Column, ...]:
    """Return the column of each of `metrics`.

    Args:
        metrics: compared metrics.
        settings: settings of the comparison.
        apart: whether the sides were not interleaved.
        typical: metrics that compare typical iterations instead of launches' values.
    """
    return tuple(_speedup_column(metric, settings, apart, typical) for metric in metrics)


def _speedup_column(
    metric: MetricName, settings: ComparisonSettings, apart: bool, typical: Collection[MetricName]
) -> Column:
    of = NUMBERS[metric]
    ratio_of = "Its {} / the baseline's" if of.better == "higher" else "The baseline's {} / its own"
    how = _RATIO_APART if apart else _RATIO_OF_TYPICAL if metric in typical else _RATIO_OF_PAIRS
    return Column(
        of.speedup,
        f"{ratio_of.format(of.header)}; above 1 is better. {how} The cell also has the verdict and, in brackets, "
        f"the {plain_percent(settings.confidence)} confidence interval of this speed-up"
        f"{' alone' if apart else ''}.",
        lambda line: _speedup(line["comparisons"].get(metric), line["footnotes"].get(metric), settings),
        words=True,
    )


def _speedup(comparison: Comparison | None, footnote: int | None, settings: ComparisonSettings) -> str:
    if comparison is None:
        return MISSING
    note = "" if footnote is None else f" [{footnote}]"
    if comparison.is_baseline:
        return "(baseline)"
    if comparison.verdict is None:
        return MISSING + note
    effect = "" if comparison.speedup is None else f"{ratio(comparison.speedup)}x "
    return effect + verdict_text(comparison, settings) + note + interval_text(comparison)


def verdict_text(comparison: Comparison, settings: ComparisonSettings) -> str:
    """Return the mark of the verdict; a ~ is explained, and a ? is followed by the number of missing launches."""
    assert comparison.verdict is not None
    mark = MARKS[comparison.verdict]
    if comparison.verdict == "undetected":
        return f"{mark} (inconclusive)"
    if comparison.verdict == "irrelevant":
        relevant = settings.relevant_difference
        ends = (comparison.low, comparison.high)
        small = all(end is not None and 1 / (1 + relevant) < end < 1 + relevant for end in ends)
        return f"{mark} (real, {'but' if small else 'perhaps'} below {plain_percent(relevant)})"
    if comparison.verdict == "unknown" and comparison.launches_missing and comparison.speedup is not None:
        return f"{mark} (needs {several(comparison.launches_missing, 'more launch')})"
    return mark


def interval_text(comparison: Comparison) -> str:
    """Return the interval in brackets after a space; empty without an interval."""
    if comparison.low is None or comparison.high is None:
        return ""
    return f" [{ratio(comparison.low)}, {ratio(comparison.high)}]"


MODEL = Column("model", "", _text("model"), words=True)
WORKLOAD = Column("workload", "", _text("workload"), words=True)
QUANT = Column("quant", "", _text("quant"), words=True)
SETTING = Column("setting", "", _text("setting"), words=True)

SETS = Column(
    "sets",
    "For a setting, the values that differ from the default; for the default, its values of the same keys. "
    "Values in the name of a setting are not repeated.",
    lambda line: line["sets"] or MISSING,
    words=True,
    known="sets",
)

FLAGS = Column(
    "flags",
    "Reasons to distrust launches, each with the number of launches. ! marks an invalid launch, which no "
    "number includes.",
    lambda line: line["empty_because"] or line["flags"] or MISSING,
    words=True,
)

LAUNCHES = Column(
    "launches",
    "Engine starts: valid / measured / planned (planned only if there is a plan). 2/3/3: one of three "
    "launches is invalid, and no number includes it.",
    _launches,
    known="launches_valid",
)
"""First column after the names, in the first table of each mode."""

_PER_DEVICE = NUMBERS["output_tokens_per_s_per_device"]

OF_THROUGHPUT = (
    replace(_column(_PER_DEVICE), known="several_devices"),
    Column(
        "launch CV %",
        "Coefficient of variation (sample standard deviation / mean) of output tok/s over launches.",
        _number("launch_cv_percent", 2),
    ),
    Column(
        "iter. CV %",
        "Coefficient of variation of output tok/s over the measured iterations inside a launch; "
        "root mean square over launches.",
        _number("iteration_cv_percent", 2),
    ),
)
"""Further columns of a table of throughput; per device only if a launch needs several."""

KV_DTYPE = Column(
    "KV dtype",
    "Data type of the KV cache, read from its tensors in the worker.",
    _text("kv_cache_dtype"),
    words=True,
    known="kv_cache_dtype",
)

EMPTY_BECAUSE = Column(
    "empty because",
    "The reason for empty cells in this line. An experiment without a valid launch has no numbers and no "
    "comparisons; its flags are the evidence.",
    lambda line: line.get("empty_because") or MISSING,
    words=True,
)
"""Last column of tables with such a reason; tables with `FLAGS`, which has the reason as well, omit it."""


@dataclass(frozen=True)
class View:
    """One table: `cells` is [lines][columns]."""

    title: str
    columns: tuple[Column, ...]
    cells: tuple[tuple[str, ...], ...]


NAMES = (MODEL, WORKLOAD, QUANT, SETTING)


def told(tables: Iterable[View]) -> list[View]:
    """Return `tables` without empty columns and lines, and without tables that have no other columns than names."""
    found = []
    for table in tables:
        telling = [place for place, column in enumerate(table.columns) if column not in NAMES]
        lines = [line for line in table.cells if any(line[place] != MISSING for place in telling)]
        filled = [
            place
            for place, column in enumerate(table.columns)
            if column in (*NAMES, EMPTY_BECAUSE) or any(line[place] != MISSING for line in lines)
        ]
        columns = tuple(table.columns[place] for place in filled)
        if any(column not in (*NAMES, EMPTY_BECAUSE) for column in columns):
            found.append(View(table.title, columns, tuple(tuple(line[place] for place in filled) for line in lines)))
    return found


@dataclass(frozen=True)
class Views:
    """All tables, and the footnotes that their cells refer to as [1], [2], ..."""

    tables: tuple[View, ...]
    footnotes: tuple[str, ...]


def tables_of(lines: Sequence[Line]) -> list[tuple[str, list[Line]]]:
    """Return the title and the lines of each table; each mode and platform has one table."""
    return [
        (
            f"{mode}, {platform}".removesuffix(f", {UNKNOWN}"),
            [line for line in lines if (line["mode"], line["platform"]) == (mode, platform)],
        )
        for mode, platform in dict.fromkeys((line["mode"], line["platform"]) for line in lines)
    ]


def on_unnamed_endpoint(row: Row) -> bool:
    """Return whether the row is of an endpoint without a named quantization and has no counterpart."""
    specs = [record.spec for record in row.experiment.records[:1]]
    unnamed = [spec.endpoint is not None and spec.quant.name == UNKNOWN for spec in specs]
    return any(unnamed) and row.against.other is None


def lines_of(
    frame: pd.DataFrame, rows: Sequence[Row], latencies: Sequence[Mapping[str, Distribution]] = ()
) -> tuple[list[Line], tuple[str, ...]]:
    """Return the input of the columns, a line per row, and the footnotes of the lines."""
    lines: list[Line] = [
        {str(field): None if pd.isna(value) else value for field, value in line.items()}
        for line in frame.astype(object).to_dict("records")
    ]
    footnotes: dict[str, int] = {}
    specs = {row.experiment.place: row.experiment.records[0].spec for row in rows if row.experiment.records}
    sets = dict(zip(specs, set_apart(list(specs.values())), strict=True))
    for place, (line, row) in enumerate(zip(lines, rows, strict=True)):
        line["sets"] = sets.get(row.experiment.place) or None
        line["distributions"] = latencies[place] if latencies else {}
        line["empty_because"] = row.empty_because
        records = row.experiment.records
        line["several_devices"] = True if records and devices_of_rate(records[0].spec) > 1 else None
        # an endpoint without a named quantization has no comparison, and needs no reason
        wanted = not on_unnamed_endpoint(row)
        reasons = {metric: comparison.reason if wanted else "" for metric, comparison in row.comparisons.items()}
        line["comparisons"] = row.comparisons
        line["footnotes"] = {
            metric: footnotes.setdefault(reason, len(footnotes) + 1) if reason else None
            for metric, reason in reasons.items()
        }
    return lines, tuple(f"[{number}] {reason}." for reason, number in footnotes.items())


def view(kind: str, title: str, columns: Sequence[Column], lines: Sequence[Line], without: Sequence[Line] = ()) -> View:
    """Return the table of `lines`, with columns for names that differ between lines, then `columns`.

    The lines in `without` follow below; they have names and counts of launches but no numbers. A line's `empty_because`
    has a separate column.
    """
    columns = [c for c in columns if not c.known or any(line.get(c.known) is not None for line in lines)]
    names: list[Column] = []
    for column in (MODEL, WORKLOAD):
        values = {column.cell(line) for line in (*lines, *without)}
        if len(values) == 1:
            title += f", {column.header} {values.pop()}"
        else:
            names.append(column)
    names.append(QUANT)
    if any(line.get("setting", DEFAULT_SETTING) != DEFAULT_SETTING for line in (*lines, *without)):
        names.append(SETTING)
    reasons = any(line.get("empty_because") for line in (*lines, *without))
    last = [EMPTY_BECAUSE] if reasons and FLAGS not in columns else []
    cells = [[column.cell(line) for column in (*names, *columns, *last)] for line in lines]
    known = (*names, LAUNCHES, *last)
    cells += [
        [column.cell(line) if column in known else MISSING for column in (*names, *columns, *last)] for line in without
    ]
    return View(kind + title, (*names, *columns, *last), tuple(map(tuple, cells)))


SHOWN = (50, 90)
"""Percentiles with a separate column; of the others the highest is shown, and summary.csv has all."""

TITLES = {
    "e2el_s": "Time until a sequence is complete (E2EL), s",
    "ttft_s": "Time to first token (TTFT), s",
    "output_tokens": "Output length, tokens",
}
"""Measure -> title of its table."""


def can_claim(line: Line, measure: str) -> bool:
    """Return whether `line` has enough sequences for any percentile of `measure`."""
    found: Distribution | None = line["distributions"].get(measure)
    return found is not None and bool(found.claimed)


def latency_columns(measure: str) -> tuple[Column, ...]:
    """Return the columns of the table of `measure`."""
    return (
        Column(
            "sequences",
            "Sequences in the measured iterations of all valid launches, pooled; in brackets the number of independent "
            "values that they count as, where it is another.",
            lambda line: _of(line, measure, _pooled_sequences),
        ),
        *(_percentile_column(measure, percentile) for percentile in SHOWN),
        Column(
            "highest claimed",
            f"The highest of {', '.join(f'p{p}' for p in PERCENTILES)} for which there are enough independent values.",
            lambda line: _of(line, measure, _highest),
        ),
        Column(
            f"to claim p{LAST}",
            f"Independent values that are still missing for p{LAST}.",
            lambda line: _of(line, measure, _lacking),
        ),
    )


def _percentile_column(measure: str, percentile: int) -> Column:
    definition = (
        f"The value that {percentile} % of the sequences do not exceed, with its interval, which is as wide as "
    )
    definition += "Student's of the launches' own percentiles, at least."
    return Column(
        f"p{percentile}",
        definition,
        lambda line: _of(
            line,
            measure,
            lambda found: _cell(found, percentile) if percentile in found.claimed else MISSING,
        ),
    )


def _of(line: Line, measure: str, cell: Callable[[Distribution], str]) -> str:
    found: Distribution | None = line["distributions"].get(measure)
    return MISSING if found is None else cell(found)


def _pooled_sequences(found: Distribution) -> str:
    independent = "" if found.independent == found.sequences else f" ({count(found.independent)})"
    return count(found.sequences) + independent


def _highest(found: Distribution) -> str:
    if not found.claimed:
        return MISSING
    highest = max(found.claimed)
    return f"p{highest} {_cell(found, highest)}"


def _lacking(found: Distribution) -> str:
    lacking = more_for(LAST, found.independent)
    return f"{count(lacking)} more" if lacking else "claimed"


def _cell(found: Distribution, percentile: int) -> str:
    claimed = found.claimed[percentile]
    return f"{number(claimed.value, 3)} [{number(claimed.low, 3)}, {number(claimed.high, 3)}]"
