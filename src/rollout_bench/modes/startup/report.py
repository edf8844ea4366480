"""The tables of starts: costs of a start, verdicts, and seconds of each phase."""

from collections.abc import Iterator, Sequence

from rollout_bench.analysis.timed.rows import Row
from rollout_bench.contracts.mode import Mode
from rollout_bench.contracts.record import Record
from rollout_bench.core.numbers import number
from rollout_bench.modes.startup.loading_report import loading_report
from rollout_bench.modes.startup.numbers import FOUND, PHASE, PHASES
from rollout_bench.modes.startup.record import start_phases
from rollout_bench.numbers.launch import COST, START
from rollout_bench.report.headings import names_among
from rollout_bench.report.parts import Findings, SummaryPart
from rollout_bench.report.prose import definitions, sections
from rollout_bench.report.timed import number_views

MOST = 12
"""Maximum number of experiments with a sentence; the tables have all."""

LOADING = "loading"
"""Folder of loading-time reports, beside the summary."""


def part_of(findings: Findings, mode: Mode) -> SummaryPart:
    """Return the costs of a start, in sentences and tables, and loading-time reports."""
    rows = [row for row in findings.rows if row.experiment.mode == mode.name]
    tables = number_views(findings, mode, (START, PHASES, FOUND, COST))
    names = names_among(rows)
    valid = [record for row in findings.rows for record in row.experiment.records if record.valid]
    timed = [row for row in rows if "until_token_s" in row.values]
    return SummaryPart(
        answers=sections(
            f"{mode.name}/report",
            starts=[(names[row.experiment.place], row.values, _largest(row)) for row in timed],
            most=MOST,
        ),
        tables=tables,
        definitions=definitions("Definitions, starts", tables),
        texts={name: text for row in rows for name, text in _loading_reports(row, valid)},
    )


def _loading_reports(row: Row, others: Sequence[Record]) -> Iterator[tuple[str, str]]:
    """Yield the file name and the loading-time report of each valid launch; `others` have its engine's sleeps."""
    for record in row.experiment.records:
        if record.valid and start_phases(record) is not None:
            yield f"{LOADING}/{row.experiment.experiment}.launch-{record.launch}.yaml", loading_report(record, others)


def _largest(row: Row) -> str:
    seconds = {label: row.values.get(f"phase_{name}_s", 0.0) for name, (label, _) in PHASE.items()}
    largest = sorted(seconds, key=lambda label: seconds[label], reverse=True)[:3]
    whole = row.values["until_token_s"]
    *others, last = [
        f"{label} ({number(seconds[label], 3)} s, {number(100 * seconds[label] / whole, 2)} %)" for label in largest
    ]
    return f"{', '.join(others)} and {last}" if others else last
