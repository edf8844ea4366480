"""The columns of the tables of percentiles, one table for each measure of a sequence."""

from __future__ import annotations

from collections.abc import Callable

from rollout_bench.analysis.latencies import LAST, PERCENTILES, Distribution, more_for
from rollout_bench.reporting.columns import Column, Line
from rollout_bench.reporting.numbers import MISSING, count, number

SHOWN = (50, 90)
"""Percentiles with a column of their own; of the others the highest is shown, all are in summary.csv."""

TITLES = {
    "e2el_s": "Time until a sequence is complete (E2EL), s",
    "ttft_s": "Time to first token (TTFT), s",
    "output_tokens": "Output length, tokens",
}
"""Table by measure."""


def latency_columns(measure: str) -> tuple[Column, ...]:
    """The columns of the table of `measure`."""
    return (
        Column(
            "sequences",
            "Sequences in the measured iterations of all valid launches, pooled; in brackets as how many independent "
            "values they count where that is another number.",
            lambda line: _of(line, measure, _sequences),
        ),
        *(_percentile_column(measure, percentile) for percentile in SHOWN),
        Column(
            "highest claimed",
            f"The highest of {', '.join(f'p{p}' for p in PERCENTILES)} that so many independent values can claim.",
            lambda line: _of(line, measure, _highest),
        ),
        Column(
            f"to claim p{LAST}",
            f"Independent values that p{LAST} still lacks.",
            lambda line: _of(line, measure, _lacking),
        ),
    )


def _percentile_column(measure: str, percentile: int) -> Column:
    definition = f"The value that {percentile} % of the sequences do not exceed, with its interval."
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


def _sequences(found: Distribution) -> str:
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
