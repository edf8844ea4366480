"""The tables of rollouts: throughput, the router, and the balance of its engines."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from rollout_bench.analysis.timed.rows import Row
from rollout_bench.contracts.forecasts import Forecast, forecasts, same_but_engine_version
from rollout_bench.contracts.mode import Mode
from rollout_bench.core.mappings import grouped
from rollout_bench.modes.rollout.numbers import OVER_SAMPLING, ROUTER, TURNS
from rollout_bench.report.parts import Findings, SummaryPart
from rollout_bench.report.prose import definitions, sections
from rollout_bench.report.timed import GENERATED, OF_LAUNCH, anatomy_sections, number_views, percentile_views

MOST_SENTENCES = 6
"""Maximum number of configurations with a sentence on their engines' shares of a step; the table has all."""


def part_of(findings: Findings, mode: Mode) -> SummaryPart:
    """Return the tables of throughput, router and engines, and a sentence on each router's balance."""
    first, *others = GENERATED
    tables = number_views(findings, mode, (first, ROUTER, TURNS, OVER_SAMPLING, *others, *OF_LAUNCH))
    tables += percentile_views(findings, mode)
    rows = [row for row in findings.rows if row.experiment.mode == mode.name]
    return SummaryPart(
        answers=sections(
            f"{mode.name}/report",
            shares=[row for row in rows if row.values.get("engines", 0) > 1],
            turned=[row for row in rows if "tool_share" in row.values],
            thrown=[row for row in rows if "dropped_share" in row.values],
            predicted=list(_predicted(findings.results, rows)),
            most=MOST_SENTENCES,
        ),
        tables=tables,
        sections=anatomy_sections(findings, mode),
        definitions=definitions("Definitions, rollouts", tables),
    )


def _predicted(results: Path, rows: Sequence[Row]) -> Iterator[tuple[Row, Forecast]]:
    """Yield the measured rows that were predicted, with their forecasts."""
    known = grouped((each.spec.names, each) for each in forecasts(results).values())
    for row in (each for each in rows if each.used):
        spec = row.experiment.records[0].spec
        yield from ((row, each) for each in known.get(spec.names, []) if same_but_engine_version(each.spec, spec))
