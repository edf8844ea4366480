"""Notes on the steps of a mode: verdicts on the whole step and on its sequences that disagree, and unseen waiting."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rollout_bench.analysis.timed.comparison import Comparison
from rollout_bench.analysis.timed.rows import Row
from rollout_bench.contracts.modes import Mode, mode_of
from rollout_bench.contracts.spec import behind_server
from rollout_bench.numbers.registry import NUMBERS, MetricName
from rollout_bench.report.parts import Findings
from rollout_bench.report.prose import Section, sections

TIME: tuple[MetricName, ...] = ("output_tokens_per_s", "step_time_s")
"""Metrics with a verdict on the whole step, tail included."""

FRONT: MetricName = "t90_s"
"""The metric with a verdict on the step without its tail."""

STANDS: Mapping[str, str] = {"faster": "faster", "slower": "slower"}
"""Verdict -> its word in a sentence; for all other verdicts no difference was found."""


def anatomy_sections(findings: Findings, mode: Mode) -> list[Section]:
    """Return the notes on the steps of `mode`: verdicts that disagree, and hidden waiting behind a server."""
    rows = [row for row in findings.rows if mode_of(row.experiment.mode) is mode]
    known = [row for row in rows if "makespan_s" in row.values]
    return sections(
        "anatomy",
        disagreeing=list(_disagreeing(rows)),
        waits_unseen=any(behind_server(row.experiment.records[0].spec) for row in known),
    )


def _disagreeing(rows: Sequence[Row]) -> Iterator[tuple[str, str, str, float, str, float]]:
    """Yield rows with different verdicts on the whole step and on its t90.

    Each has its name, the metric of the step, its verdict and ratio, then the verdict and ratio of t90.
    """
    for row in rows:
        whole = next((metric for metric in TIME if metric in row.comparisons), None)
        if whole is None or FRONT not in row.comparisons:
            continue
        one, other = row.comparisons[whole], row.comparisons[FRONT]
        says, says_other = _said(one), _said(other)
        if one.speedup and other.speedup and says and says_other and says != says_other:
            yield row.name, NUMBERS[whole].header, says, one.speedup, says_other, other.speedup


def _said(comparison: Comparison) -> str:
    if comparison.verdict in (None, "unknown"):
        return ""
    return STANDS.get(comparison.verdict or "", "no difference")
