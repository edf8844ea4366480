"""The columns that people see: heading, what stands in a cell, and the number's definition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rollout_bench.analysis.comparison import MARKS, Comparison
from rollout_bench.analysis.metrics import METRICS
from rollout_bench.plan.comparing import ComparisonSettings
from rollout_bench.plan.fields import Metric
from rollout_bench.reporting.numbers import MISSING, count, number, percent, plain_percent, ratio

Line = dict[str, Any]
"""One line of the table (`analysis.tables.COLUMNS`), missing numbers as None; plus, by metric, `comparisons` and
`footnotes` (a number or None), by measure, `distributions` of its sequences, and `empty_because`: why what was measured
gives no number, empty where it does."""


@dataclass(frozen=True)
class Column:
    """A column; `cell` gives the text for a line. `words`: it reads from the left, as words do."""

    header: str
    definition: str
    cell: Callable[[Line], str]
    words: bool = False


_RATIO_OF_PAIRS = (
    "of each pair of launches with the same index, and of these ratios the geometric mean. The baseline has the same "
    "mode, platform, model, quant, workload and engine version, but for what `baseline` changes."
)

_RATIO_APART = (
    "each being the geometric mean over the launches of its side. The baseline has the same mode, platform, model, "
    "quant and workload, and was measured at another time or place."
)


def _text(field: str) -> Callable[[Line], str]:
    return lambda line: line[field] or MISSING


def _number(field: str, digits: int = 4) -> Callable[[Line], str]:
    return lambda line: number(line[field], digits)


def _launches(line: Line) -> str:
    planned = "" if line["launches_planned"] is None else f"/{line['launches_planned']}"
    return f"{line['launches_measured']}{planned}"


def speedup_columns(settings: ComparisonSettings, mode: str = "offline", apart: bool = False) -> tuple[Column, ...]:
    """The column of each metric that is compared in `mode`; `apart`: with sides that did not take turns."""
    return tuple(_speedup_column(metric, settings, apart) for metric in settings.metrics_of(mode))


def _speedup_column(metric: Metric, settings: ComparisonSettings, apart: bool) -> Column:
    measure = METRICS[metric]
    ratio_of = "Its {} / the baseline's" if measure.higher_is_better else "The baseline's {} / its own"
    how = _RATIO_APART if apart else _RATIO_OF_PAIRS
    return Column(
        measure.header,
        f"{ratio_of.format(measure.name)}, above 1 being better, {how} Then the verdict, and in brackets "
        f"the {plain_percent(settings.confidence)} confidence interval of this speed-up taken alone.",
        lambda line: _speedup(line["comparisons"][metric], line["footnotes"][metric], settings),
        words=True,
    )


def _speedup(comparison: Comparison, footnote: int | None, settings: ComparisonSettings) -> str:
    note = "" if footnote is None else f" [{footnote}]"
    if comparison.is_baseline:
        return "(baseline)"
    if comparison.verdict is None:
        return MISSING + note
    effect = "" if comparison.speedup is None else f"{ratio(comparison.speedup)}x "
    return effect + verdict_text(comparison, settings) + note + interval_text(comparison)


def verdict_text(comparison: Comparison, settings: ComparisonSettings) -> str:
    """The mark, with the size that could be found beside a ~ and what is missing beside a ?."""
    assert comparison.verdict is not None
    mark = MARKS[comparison.verdict]
    if comparison.verdict == "undetected" and comparison.minimal_detectable_difference is not None:
        return f"{mark} (< {percent(comparison.minimal_detectable_difference)})"
    if comparison.verdict == "irrelevant":
        relevant = settings.relevant_difference
        ends = (comparison.low, comparison.high)
        small = all(end is not None and 1 / (1 + relevant) < end < 1 + relevant for end in ends)
        return f"{mark} (real, {'but' if small else 'perhaps'} below {plain_percent(relevant)})"
    if comparison.verdict == "unknown" and comparison.launches_missing and comparison.speedup is not None:
        return f"{mark} ({comparison.launches_missing} more)"
    return mark


def interval_text(comparison: Comparison) -> str:
    """The interval in brackets after a space; nothing where there is none."""
    if comparison.low is None or comparison.high is None:
        return ""
    return f" [{ratio(comparison.low)}, {ratio(comparison.high)}]"


def _or_unknown(line: Line, field: str, text: str) -> str:
    """`text`, but where it was measured and nobody could know, as with another's server."""
    if line[field] is not None:
        return text
    return "unknown" if line["launches_valid"] else MISSING


def _sequences(line: Line) -> str:
    if line["kv_cache_sequences"] is None:
        return MISSING
    if line["kv_cache_sequences"] >= line["workload_sequences"]:
        return f"all {count(line['workload_sequences'])}"
    return f"{count(line['kv_cache_sequences'])} of {count(line['workload_sequences'])}"


MODEL = Column("model", "", _text("model"), words=True)
WORKLOAD = Column("workload", "", _text("workload"), words=True)
QUANT = Column("quant", "", _text("quant"), words=True)

FLAGS = Column(
    "flags",
    "Doubts about launches, and how many launches have them; ! makes them invalid: no number comes from them.",
    lambda line: line["empty_because"] or line["flags"] or MISSING,
    words=True,
)

THROUGHPUT = (
    Column("launches", "Engine starts that were measured, invalid ones too, of those planned.", _launches),
    Column(
        "output tok/s",
        "Output tokens of all sequences (each of a prompt's n samples counts) in the measured iterations of "
        "a launch, divided by the time those iterations took; then the mean over valid launches, as in every column. "
        "Warm-up iterations never count.",
        _number("output_tokens_per_s"),
    ),
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
    Column(
        "iter. s",
        "Elapsed time of a measured iteration, from the first request until the last token, in seconds: "
        "the rollout's step time. Mean over iterations, then over launches.",
        _number("iteration_elapsed_s"),
    ),
)
"""What an experiment reached; `speedup_columns` follow."""

ENGINE = (
    Column("total tok/s", "As output tok/s, with prompt and output tokens.", _number("total_tokens_per_s")),
    Column("requests/s", "As output tok/s, with requests handed to the engine.", _number("requests_per_s")),
    Column("sequences/s", "As output tok/s, with sequences (samples) that came back.", _number("sequences_per_s")),
    Column(
        "start-up s",
        "Importing the engine and constructing it until it takes requests, mean over launches.",
        _number("startup_s", 3),
    ),
    Column(
        "KV cache tokens",
        "Tokens that fit into the KV cache; the least over launches.",
        lambda line: _or_unknown(line, "kv_cache_tokens", count(line["kv_cache_tokens"])),
    ),
    Column(
        "sequences at once",
        "How many of the sequences in one iteration the KV cache holds at once at full length (prompt + output "
        "tokens) if they share nothing.",
        _sequences,
    ),
    Column(
        "weights GiB",
        "Bytes of the loaded weights, read from the model in the worker.",
        lambda line: _or_unknown(line, "weights_bytes", number((line["weights_bytes"] or 0) / 2**30, 3)),
    ),
)
"""The other rates, and what it took to get there."""
