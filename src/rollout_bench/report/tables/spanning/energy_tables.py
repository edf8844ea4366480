"""The table of energy, for every mode with repeated iterations."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from rollout_bench.analysis.stats.intervals import mean
from rollout_bench.analysis.timed.launches import values_of
from rollout_bench.analysis.timed.rows import Row
from rollout_bench.contracts.modes import MODES, Mode, mode_of
from rollout_bench.core.mappings import grouped
from rollout_bench.core.numbers import first_few
from rollout_bench.numbers.registry import ENERGY, NUMBERS, MetricName
from rollout_bench.report.headings import ENERGY_USED, Column, Line, View, speedup_columns, view
from rollout_bench.report.parts import ENERGY_COMPARED, Findings, SummaryPart
from rollout_bench.report.prose import definitions, sections

_J_PER_TOKEN, _PER_W, _POWER, _OF_LIMIT = ENERGY_USED

_ENERGY, _WATTS = ENERGY_COMPARED


def energy_part(findings: Findings) -> SummaryPart:
    """Return a table for each platform and mode, energy.csv, and the reasons for unknown energy.

    Launches with neither energy nor a reason are left out.
    """
    tables = list(_views(findings))
    unknown = sections("energy", unknown=list(_unknown(findings)))
    frame = _frame(findings)
    # if energy was not requested and is unknown, the reason is only in the files
    told = bool(tables) or _asked(findings)
    return SummaryPart(
        tables=tables,
        sections=unknown if told else (),
        definitions=[*(() if told else unknown), *definitions("Definitions, energy", tables)],
        files={} if frame.empty else {"energy.csv": frame},
    )


def _asked(findings: Findings) -> bool:
    settings = findings.collection.comparison
    modes = {row.experiment.mode for row in findings.rows}
    return any(NUMBERS[metric].table == ENERGY for mode in modes for metric in settings.metrics_of(mode))


def _repeats(row: Row) -> bool:
    return mode_of(row.experiment.mode).passes != "none"


def _views(findings: Findings) -> Iterator[View]:
    compared = {row.experiment.place: row for row in findings.energy_rows}
    for mode in MODES.values():
        for title, lines, rows in findings.tables_of(mode) if mode.passes != "none" else ():
            told = [
                line
                | {
                    "comparisons": compared[row.experiment.place].comparisons,
                    "footnotes": dict.fromkeys(ENERGY_COMPARED),
                }
                for line, row in zip(lines, rows, strict=True)
                if row.experiment.place in compared
            ]
            if any(values_of(_ENERGY, row.used) for row in rows):
                yield view("Energy: ", title, _columns(findings, mode), told)


def _columns(findings: Findings, mode: Mode) -> tuple[Column, ...]:
    settings = findings.energy_settings
    speedups = speedup_columns(settings, mode.name, typical=findings.typical(mode))
    columns = dict(zip(ENERGY_COMPARED, speedups, strict=True))
    return (_J_PER_TOKEN, columns[_ENERGY], _PER_W, _POWER, columns[_WATTS], _OF_LIMIT)


def _mean(metric: MetricName, row: Row) -> float:
    return mean(list(values_of(metric, row.used).values()))


def _unknown(findings: Findings) -> Iterator[tuple[str, str]]:
    rows = [row for row in findings.rows if _repeats(row)]
    reasons = (
        (reason, row.name)
        for row in rows
        for reason in dict.fromkeys(record.no_energy for record in row.experiment.records if record.no_energy)
    )
    for reason, names in grouped(reasons).items():
        yield "" if len(names) == len(rows) else first_few(names, 3), reason


def _frame(findings: Findings) -> pd.DataFrame:
    lines = []
    for row in findings.energy_rows:
        if not (_repeats(row) and values_of(_ENERGY, row.used)):
            continue
        line: Line = {"mode": row.experiment.mode, "platform": row.experiment.platform, **row.axes}
        line |= {name: _mean(name, row) for name in NUMBERS if NUMBERS[name].table == ENERGY and _has(name, row)}
        for metric in ENERGY_COMPARED:
            found = row.comparisons[metric]
            verdict = "baseline" if found.is_baseline else found.verdict
            numbers = {"speedup": found.speedup, "low": found.low, "high": found.high, "verdict": verdict}
            line |= {f"{metric}_{name}": value for name, value in numbers.items()}
        lines.append(line)
    return pd.DataFrame(lines)


def _has(metric: MetricName, row: Row) -> bool:
    return bool(values_of(metric, row.used))
