"""The columns that people see: heading, what stands in a cell, and the number's definition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rollout_bench.analysis.comparison import MARKS
from rollout_bench.reporting.numbers import MISSING, count, number, ratio

Line = dict[str, Any]
"""One line of the table (`analysis.tables.COLUMNS`), missing numbers as None; plus `footnote`."""


@dataclass(frozen=True)
class Column:
    """A column; `cell` gives the text for a line. `words`: it reads from the left, as words do."""

    header: str
    definition: str
    cell: Callable[[Line], str]
    words: bool = False


def _text(field: str) -> Callable[[Line], str]:
    return lambda line: line[field] or MISSING


def _number(field: str, digits: int = 4) -> Callable[[Line], str]:
    return lambda line: number(line[field], digits)


def _launches(line: Line) -> str:
    planned = "" if line["launches_planned"] is None else f"/{line['launches_planned']}"
    return f"{line['launches_measured']}{planned}"


def _throughput(line: Line) -> str:
    doubtful = 0 < line["launches_measured"] == line["launches_invalid"]
    return number(line["output_tokens_per_s"]) + ("!" if doubtful else "")


def _speedup(line: Line) -> str:
    if line["verdict"] == "baseline":
        return "(baseline)"
    if line["speedup"] is None:
        return MISSING if line["footnote"] is None else f"{MISSING} [{line['footnote']}]"
    text = f"{ratio(line['speedup'])}x {MARKS[line['verdict']]}"
    if line["speedup_pairs"] > 1:
        text += f" {ratio(line['speedup_min'])}..{ratio(line['speedup_max'])}"
    return text


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
    "Doubts about launches, and how many launches have them; ! keeps a launch out of means and speed-ups.",
    _text("flags"),
    words=True,
)

THROUGHPUT = (
    Column("launches", "Engine starts that were measured, of those planned.", _launches),
    Column(
        "output tok/s",
        "Output tokens of all sequences (each of a prompt's n samples counts) in the measured iterations of "
        "a launch, divided by the time those iterations took; then the mean over launches. "
        "Warm-up iterations never count. ! marks a value that only invalid launches gave.",
        _throughput,
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
    Column(
        "speed-up",
        "Ratio of output tok/s to that of the baseline with the same mode, platform, model, workload and "
        "engine version, means over all valid launches; behind it the verdict, and the smallest and the largest "
        "ratio of two launches with the same index.",
        _speedup,
        words=True,
    ),
)
"""What an experiment reached."""

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
        lambda line: count(line["kv_cache_tokens"]),
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
        lambda line: number(None if line["weights_bytes"] is None else line["weights_bytes"] / 2**30, 3),
    ),
)
"""The other rates, and what it took to get there."""
