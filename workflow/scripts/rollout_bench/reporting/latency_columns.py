"""The columns of the tables of percentiles, one table for each measure of a sequence."""

from __future__ import annotations

from collections.abc import Callable

from rollout_bench.analysis.latencies import LAST, PERCENTILES, Distribution, claimable, more_for
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
            "Sequences in the measured iterations of all valid launches, pooled.",
            lambda line: _of(line, measure, lambda found: count(found.sequences)),
        ),
        *(_percentile_column(measure, percentile) for percentile in SHOWN),
        Column(
            "highest claimed",
            f"The highest of {', '.join(f'p{p}' for p in PERCENTILES)} that so many sequences can claim.",
            lambda line: _of(line, measure, lambda found: _highest(found, measure)),
        ),
        Column(
            f"to claim p{LAST}",
            f"Sequences that p{LAST} still lacks.",
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
            lambda found: _cell(found, percentile, measure) if percentile in found.claimed else MISSING,
        ),
    )


def _of(line: Line, measure: str, cell: Callable[[Distribution], str]) -> str:
    found: Distribution | None = line["distributions"].get(measure)
    return MISSING if found is None else cell(found)


def _highest(found: Distribution, measure: str) -> str:
    if not found.claimed:
        return MISSING
    highest = max(found.claimed)
    return f"p{highest} {_cell(found, highest, measure)}"


def _lacking(found: Distribution) -> str:
    lacking = more_for(LAST, found.sequences)
    return f"{count(lacking)} more" if lacking else "claimed"


def _cell(found: Distribution, percentile: int, measure: str) -> str:
    claimed = found.claimed[percentile]
    # Lengths are whole numbers, so equal ones are no sign of anything.
    in_step = measure != "output_tokens" and percentile not in claimable(found.distinct)
    interval = f"[{number(claimed.low, 3)}, {number(claimed.high, 3)}]"
    return f"{number(claimed.value, 3)} {interval}{'!' if in_step else ''}"
