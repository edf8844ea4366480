"""The tables of rollouts: throughput of a step, and the work of its router and its engines."""

from __future__ import annotations

from rollout_bench.contracts.modes import ROLLOUT
from rollout_bench.numbers.rollout import ROUTER
from rollout_bench.report.parts import Findings, SummaryPart
from rollout_bench.report.prose import definitions, sections
from rollout_bench.report.tables.anatomy_tables import anatomy_sections
from rollout_bench.report.tables.timed_tables import GENERATED, OF_LAUNCH, number_views, percentile_views

MOST = 6
"""Maximum number of configurations with a sentence on their engines' shares of a step; the table has all."""


def rollout_part(findings: Findings) -> SummaryPart:
    """Return the tables of throughput, router and engines, and a sentence on each router's balance."""
    first, *others = GENERATED
    tables = number_views(findings, ROLLOUT, (first, ROUTER, *others, *OF_LAUNCH))
    tables += percentile_views(findings, ROLLOUT)
    rows = [row for row in findings.rows if row.experiment.mode == ROLLOUT.name]
    return SummaryPart(
        answers=sections(ROLLOUT.name, shares=[row for row in rows if row.values.get("engines", 0) > 1], most=MOST),
        tables=tables,
        sections=anatomy_sections(findings, ROLLOUT),
        definitions=definitions("Definitions, rollouts", tables),
    )
