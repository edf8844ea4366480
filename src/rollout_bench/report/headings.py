"""Columns of modes that generate: numbers, speed-ups, percentiles."""

from collections.abc import Callable, Collection, Mapping, Sequence

from rollout_bench.analysis.timed.columns import flag_texts, kv_cache_dtype
from rollout_bench.analysis.timed.comparison import BOUND, MARKS, Comparison
from rollout_bench.analysis.timed.experiments import ExperimentResults
from rollout_bench.analysis.timed.latencies import Distribution, more_for
from rollout_bench.analysis.timed.rows import Row
from rollout_bench.contracts.record import Launched
from rollout_bench.contracts.spec import devices_of_rate
from rollout_bench.core.numbers import MISSING, count, number, plain_percent, ratio, several
from rollout_bench.numbers.number import Number
from rollout_bench.numbers.registry import NUMBERS, MetricName
from rollout_bench.plan.config import ComparisonSettings
from rollout_bench.report.views import EMPTY_BECAUSE, FLAGS, LAUNCHES, Column

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


def number_columns(table: str) -> tuple[Column[Row], ...]:
    """Return the columns of the numbers that `table` shows, in the order of the registry."""
    return tuple(_column(number) for number in NUMBERS.values() if number.table == table)


def _column(number: Number) -> Column[Row]:
    return Column(number.header, number.definition, lambda row: number.text(row.values.get(number.name)))


def launches_text(experiment: ExperimentResults[Launched]) -> str:
    """Return the text for `LAUNCHES` of an experiment of any mode."""
    valid = sum(record.valid for record in experiment.records)
    counts = (valid, len(experiment.records), experiment.planned)
    return "/".join(str(amount) for amount in counts if amount is not None)


def texts_of(row: Row, shared: Collection[str]) -> dict[str, str]:
    """Return the texts of a row by header: its names, launches, flags, and the reason for missing numbers.

    The flags `shared` by all launches of a summary are in its conclusion.
    """
    names = {name: str(value) for name, value in row.axes.items()}
    flags = row.empty_because or "; ".join(flag_texts(row, shared))
    return names | {
        LAUNCHES.header: launches_text(row.experiment),
        FLAGS.header: flags,
        EMPTY_BECAUSE.header: row.empty_because,
    }


def names_among(rows: Sequence[Row]) -> dict[str, str]:
    """Return the name of each of `rows` by its place, with model and workload only if there are several."""
    several_tables = len({(row.experiment.model, row.experiment.workload) for row in rows}) > 1
    return {row.experiment.place: row.name if several_tables else row.label for row in rows}


def speedup_column(
    metric: MetricName,
    settings: ComparisonSettings,
    footnotes: Mapping[str, int],
    apart: bool = False,
    typical: Collection[MetricName] = (),
) -> Column[Row]:
    """Return the column of a speed-up.

    Args:
        metric: the compared metric.
        settings: settings of the comparison.
        footnotes: reason for a missing verdict -> number of its footnote.
        apart: whether the sides were not interleaved.
        typical: metrics that compare typical iterations instead of launches' values.
    """
    of = NUMBERS[metric]
    ratio_of = "Its {} / the baseline's" if of.better == "higher" else "The baseline's {} / its own"
    how = _RATIO_APART if apart else _RATIO_OF_TYPICAL if metric in typical else _RATIO_OF_PAIRS
    return Column(
        of.speedup,
        f"{ratio_of.format(of.header)}; above 1 is better. {how} The cell also has the verdict and, in brackets, "
        f"the {plain_percent(settings.confidence)} confidence interval of this speed-up"
        f"{' alone' if apart else ''}.",
        lambda row: _speedup(row.comparisons.get(metric), footnotes, settings),
        words=True,
        is_speedup=True,
    )


def _speedup(comparison: Comparison | None, footnotes: Mapping[str, int], settings: ComparisonSettings) -> str:
    if comparison is None:
        return MISSING
    note = f" [{footnotes[comparison.reason]}]" if comparison.reason in footnotes else ""
    if comparison.is_baseline:
        return "(baseline)"
    if comparison.verdict is None:
        return MISSING + note
    effect = "" if comparison.speedup is None else f"{ratio(comparison.speedup)}x "
    return effect + verdict_text(comparison, settings) + note + interval_text(comparison)


def verdict_text(comparison: Comparison, settings: ComparisonSettings) -> str:
    """Return the mark of the verdict; a ~ is explained, and a ? is followed by the number of missing launches."""
    assert comparison.verdict is not None
    relevant, ends = settings.relevant_difference, (comparison.low, comparison.high)
    small = all(end is not None and 1 / (1 + relevant) < end < 1 + relevant for end in ends)
    needs = comparison.launches_missing and comparison.speedup is not None
    explained = {
        "undetected": f" ({_undetected(comparison)})",
        "irrelevant": f" (real, {'but' if small else 'perhaps'} below {plain_percent(relevant)})",
        "unknown": f" (needs {several(comparison.launches_missing, 'more launch')})" if needs else "",
    }
    return MARKS[comparison.verdict] + explained.get(comparison.verdict, "")


def _undetected(comparison: Comparison) -> str:
    if comparison.only_among_all:
        return "inconclusive among all"
    return f"within {plain_percent(BOUND)}" if comparison.is_bounded else "inconclusive"


def interval_text(comparison: Comparison) -> str:
    """Return the interval in brackets after a space; empty without an interval."""
    if comparison.low is None or comparison.high is None:
        return ""
    return f" [{ratio(comparison.low)}, {ratio(comparison.high)}]"


def _per_device(row: Row) -> str:
    several = row.used and devices_of_rate(row.experiment.records[0].spec) > 1
    return _PER_DEVICE.text(row.values.get(_PER_DEVICE.name) if several else None)


def _spread_text(name: str) -> Callable[[Row], str]:
    return lambda row: number(row.spread.get(name), 2)


_PER_DEVICE = NUMBERS["output_tokens_per_s_per_device"]

OF_THROUGHPUT: tuple[Column[Row], ...] = (
    Column(_PER_DEVICE.header, _PER_DEVICE.definition, _per_device),
    Column(
        "launch CV %",
        "Coefficient of variation (sample standard deviation / mean) of output tok/s over launches.",
        _spread_text("launch_cv_percent"),
    ),
    Column(
        "iter. CV %",
        "Coefficient of variation of output tok/s over the measured iterations inside a launch; "
        "root mean square over launches.",
        _spread_text("iteration_cv_percent"),
    ),
)
"""Further columns of a table of throughput; per device only if a launch needs several."""

KV_DTYPE: Column[Row] = Column(
    "KV dtype", "Data type of the KV cache, read from its tensors in the worker.", kv_cache_dtype, words=True
)


SHOWN = (50, 90, 99)
"""Percentiles with a column; summary.csv has all that are proven."""

TITLES = {
    "e2el_s": "Time until a sequence is complete (E2EL), s",
    "ttft_s": "Time to first token (TTFT), s",
    "output_tokens": "Output length, tokens",
}
"""Measure -> title of its table."""

UNPROVEN = "In parentheses: of too few independent values to be sure, so no verdict rests on it."


def too_few_values(text: str) -> str:
    """Return the `text` of a percentile for which there are too few values."""
    return f"({text})"


def _percentile_column(percentile: int) -> Column[Distribution]:
    def cell(found: Distribution) -> str:
        proven = found.proven.get(percentile)
        if proven is None:
            return too_few_values(number(found.percentiles[percentile], 3))
        return f"{number(proven.value, 3)} [{number(proven.low, 3)}, {number(proven.high, 3)}]"

    return Column(
        f"p{percentile}",
        f"The value that {percentile} % of the sequences do not exceed, with its interval, which is as wide as "
        f"Student's of the launches' own percentiles, at least. {UNPROVEN}",
        cell,
    )


def missing_text(independent: int) -> str:
    """Return how many independent values the last of `SHOWN` lacks."""
    return count(more_for(SHOWN[-1], independent))


PERCENTILE_COLUMNS: tuple[Column[Distribution], ...] = (
    Column(
        "sequences",
        "Sequences in the measured iterations of all valid launches, pooled; in brackets the number of independent "
        "values that they count as, where it is another.",
        lambda found: (
            count(found.sequences) + (f" ({count(found.independent)})" if found.independent != found.sequences else "")
        ),
    ),
    *map(_percentile_column, SHOWN),
    Column(
        f"p{SHOWN[-1]} lacks",
        f"Independent values that are missing until p{SHOWN[-1]} is sure.",
        lambda found: missing_text(found.independent),
    ),
)
