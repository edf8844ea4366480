"""The table of energy and price, of every mode that runs its workload again and again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from rollout_bench.analysis.stats.intervals import mean
from rollout_bench.analysis.timed.columns import PRICE
from rollout_bench.analysis.timed.comparison import Comparison, Verdict
from rollout_bench.analysis.timed.launches import values_of
from rollout_bench.analysis.timed.rows import Row
from rollout_bench.contracts.metrics import ENERGY, METRICS, MetricName
from rollout_bench.contracts.modes import MODES, Mode, mode_of
from rollout_bench.core.mappings import grouped
from rollout_bench.core.numbers import MISSING, first_few, number, ratio
from rollout_bench.report.headings import ENERGY_USED, Column, Line, View, interval_text, speedup_columns, view
from rollout_bench.report.parts import ENERGY_COMPARED, Findings, SummaryPart
from rollout_bench.report.prose import definitions, sections

_J_PER_TOKEN, _PER_W, _POWER, _OF_LIMIT = ENERGY_USED

_SPEED, _PER_DEVICE, _ENERGY, _WATTS = ENERGY_COMPARED

MOST = 6
"""Sentences; the table has all."""

SOURCE = Column(
    "energy from",
    "Where the energy is from. counter: the device's own; sampled: its power, read about ten times a second (of an NPU "
    "every other second) and integrated.",
    lambda line: line["energy_from"] or MISSING,
    words=True,
    known="energy_from",
)

PRICE_OF_TOKENS = Column(
    "price of 1M tokens",
    "Of a million output tokens, generation alone: the price of a device-hour in `prices`, times the devices that a "
    "launch takes, over its output tok/s.",
    lambda line: number(line.get(PRICE), 4),
    known=PRICE,
)


@dataclass(frozen=True)
class Thrift:
    """What an experiment takes of energy against its baseline.

    Attributes:
        name: what both have in common, where there are several of such; else empty.
        own: what sentences call it.
        other: the same of the baseline.
        verdict: on its energy; None where nothing can be compared.
        share: its energy for a token over the baseline's.
        ends: of the interval of `share`; empty without one.
        joules: for a token, its own and the baseline's.
        speed: its output tok/s over the baseline's, with the interval as a table shows it; empty where not known.
        power: the verdict on its power.
        watts: of a device, its own and the baseline's.
    """

    name: str
    own: str
    other: str
    verdict: Verdict | None
    share: float
    ends: tuple[float, ...]
    joules: tuple[float, float]
    speed: str
    power: Verdict | None
    watts: tuple[float, float]


def energy_part(findings: Findings) -> SummaryPart:
    """Return a table for each platform and mode, a sentence on each comparison, energy.csv, and why some is not known.

    Nothing of launches that neither tell their energy nor why it is not known, as those of earlier versions.
    """
    tables = list(_views(findings))
    thrifts = list(_thrifts(findings))
    made = sections(
        "energy",
        thrifts=thrifts[:MOST],
        more=max(0, len(thrifts) - MOST),
        unknown=list(_unknown(findings)),
    )
    frame = _frame(findings)
    unknown = [section for section in made if section.heading != "Energy"]
    # who asked for no energy, on a machine that tells of none, finds in the files why there is none
    told = bool(tables) or _asked(findings)
    return SummaryPart(
        answers=[section for section in made if section.heading == "Energy"],
        tables=tables,
        sections=unknown if told else (),
        definitions=[*(() if told else unknown), *definitions("Definitions, energy", tables)],
        files={} if frame.empty else {"energy.csv": frame},
    )


def _asked(findings: Findings) -> bool:
    settings = findings.collection.comparison
    modes = {row.experiment.mode for row in findings.rows}
    return any(METRICS[metric].group == ENERGY for mode in modes for metric in settings.metrics_of(mode))


def _repeats(row: Row) -> bool:
    return mode_of(row.experiment.mode).passes != "none"


def energy_from(row: Row) -> str:
    """Return where the energy of a row is from, in the words of the column; empty where it is not known."""
    uses = [
        use for launch in row.used for iteration in launch.passes for use in iteration.devices or () if use.energy_j
    ]
    return "counter" if uses else ""


def _views(findings: Findings) -> Iterator[View]:
    compared = {row.experiment.place: row for row in findings.energy_rows}
    for mode in MODES.values():
        for title, lines, rows in findings.tables_of(mode) if mode.passes != "none" else ():
            told = [
                line
                | {
                    "comparisons": compared[row.experiment.place].comparisons,
                    "footnotes": dict.fromkeys(ENERGY_COMPARED),
                    "energy_from": energy_from(row) or None,
                    "same_device": _same_device(row),
                }
                for line, row in zip(lines, rows, strict=True)
                if row.experiment.place in compared
            ]
            if any(line["energy_from"] for line in told):
                yield view("Energy: ", title, _columns(findings, mode), told)


def _columns(findings: Findings, mode: Mode) -> tuple[Column, ...]:
    settings = findings.energy_settings
    speedups = speedup_columns(settings, mode.name, findings.apart, findings.typical(mode))
    columns = dict(zip(ENERGY_COMPARED, speedups, strict=True))
    dearer = Column(
        "price gain",
        "The baseline's price of 1M tokens / its own, above 1 being better: the speed-up of tok/s per device, since "
        "both pay as much for a device. Then verdict and interval, as above.",
        lambda line: columns[_PER_DEVICE].cell(line) if line["same_device"] else MISSING,
        words=True,
        known=PRICE,
    )
    return (
        _J_PER_TOKEN,
        columns[_ENERGY],
        _PER_W,
        _POWER,
        columns[_WATTS],
        _OF_LIMIT,
        PRICE_OF_TOKENS,
        dearer,
        SOURCE,
    )


def _same_device(row: Row) -> bool:
    """Return whether the baseline ran on a device of the same name, whose hour costs the same."""
    other = row.against.other
    records = [] if other is None else other.records
    models = {record.environment.device_model for record in (*row.experiment.records, *records)}
    return len(models) == 1


def _thrifts(findings: Findings) -> Iterator[Thrift]:
    rows = [row for row in findings.energy_rows if _repeats(row)]
    known = {row.experiment.place: row for row in rows if values_of(_ENERGY, row.used)}
    named = {(row.experiment.mode, row.experiment.model, row.experiment.workload) for row in known.values()}
    for row in known.values():
        base = None if row.against.other is None else known.get(row.against.other.place)
        found, power = row.comparisons[_ENERGY], row.comparisons[_WATTS]
        if base is None or found.is_baseline or found.speedup is None:
            continue
        own = row.experiment
        among = ", ".join(
            name
            for place, name in enumerate((own.mode, own.model, own.workload))
            if len({names[place] for names in named}) > 1
        )
        yield Thrift(
            name=among,
            own=row.label,
            other=base.label,
            verdict=found.verdict,
            share=1 / found.speedup,
            ends=tuple(1 / end for end in (found.high, found.low) if end),
            joules=(_mean(_ENERGY, row), _mean(_ENERGY, base)),
            speed=_speed(row.comparisons[_SPEED]),
            power=power.verdict,
            watts=(_mean(_WATTS, row), _mean(_WATTS, base)),
        )


def _mean(metric: MetricName, row: Row) -> float:
    return mean(list(values_of(metric, row.used).values()))


def _speed(comparison: Comparison) -> str:
    if comparison.speedup is None:
        return ""
    return f"{ratio(comparison.speedup)}x{interval_text(comparison)}"


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
        line |= {name: _mean(name, row) for name in METRICS if METRICS[name].group == ENERGY and _has(name, row)}
        line |= {"energy_from": energy_from(row)}
        for metric in (_ENERGY, _WATTS, _PER_DEVICE):
            found = row.comparisons[metric]
            verdict = "baseline" if found.is_baseline else found.verdict
            numbers = {"speedup": found.speedup, "low": found.low, "high": found.high, "verdict": verdict}
            line |= {f"{metric}_{name}": value for name, value in numbers.items()}
        lines.append(line)
    return pd.DataFrame(lines)


def _has(metric: MetricName, row: Row) -> bool:
    return bool(values_of(metric, row.used))
