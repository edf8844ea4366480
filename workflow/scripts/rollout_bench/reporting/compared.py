"""The comparison of two results folders as text, Markdown and CSV."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from rollout_bench.analysis.against import valid_records
from rollout_bench.analysis.experiments import Collection, launched
from rollout_bench.analysis.facts import Difference
from rollout_bench.analysis.metrics import METRICS
from rollout_bench.analysis.rows import Row, rows_of
from rollout_bench.analysis.tables import table
from rollout_bench.plan.comparing import ComparisonSettings
from rollout_bench.plan.fields import Metric
from rollout_bench.reporting.columns import Column, Line, speedup_columns
from rollout_bench.reporting.folders import TwoFolders, told
from rollout_bench.reporting.machines import extent, machine_lines
from rollout_bench.reporting.markdown import markdown
from rollout_bench.reporting.notes import Section, damage
from rollout_bench.reporting.numbers import MISSING, number, several
from rollout_bench.reporting.terminal import terminal
from rollout_bench.reporting.verdicts import needed, rule, those
from rollout_bench.reporting.view import tables_of, view
from rollout_bench.reporting.views import Views, lines_of


@dataclass(frozen=True)
class Compared:
    """The contents of compare.md and compare.csv, and what stands on the terminal."""

    text: str
    markdown: str
    csv: str


def compared(two: TwoFolders) -> Compared:
    """Compares the experiments of B with those of A."""
    settings, rows = two.collection.comparison, rows_of(two.collection)
    lines, footnotes = lines_of(table(rows), rows)
    for line, row in zip(lines, rows, strict=True):
        line["launches"] = _launches(row)
    columns = {mode: _columns(settings, mode) for mode in dict.fromkeys(row.experiment.mode for row in rows)}
    tables = Views(
        tuple(view("B over A: ", title, columns[group[0]["mode"]], group) for title, group in tables_of(lines)),
        footnotes,
    )
    defined = {column.header: column.definition for each in columns.values() for column in each}
    sections = [
        Section("Damaged", damage(two.damaged)),
        Section("A and B", tuple(_sides(two))),
        Section("What is compared", tuple(_subject(rows))),
        Section("Warnings", tuple(_warnings(rows))),
        Section("No verdict", footnotes),
        Section("Only in A, not compared", tuple(map(told, two.only_in_a))),
        Section("Only in B, not compared", tuple(map(told, two.only_in_b))),
        Section("Verdicts", (*rule(settings, apart=True), *needed(rows, settings))),
        Section("Definitions", tuple(f"{header}: {text}" for header, text in defined.items())),
    ]
    sections = [section for section in sections if section.items]
    amount = len(launched(row.experiment for row in rows if row.against.other is not None))
    status = (
        f"{several(amount, 'experiment')} of B compared with A. Nothing took turns: "
        "whatever drifted between A and B is part of each speed-up."
    )
    return Compared(
        text=terminal(status, tables, sections),
        markdown=markdown(status, tables, sections, figures=(), title="Comparison of two results folders"),
        csv=_csv(rows),
    )


def _launches(row: Row) -> tuple[int, int]:
    """Valid launches of A and of B."""
    other = row.against.other
    return len(valid_records(other)) if other else 0, len(valid_records(row.experiment))


def _columns(settings: ComparisonSettings, mode: str) -> list[Column]:
    columns = [
        Column(
            "launches A",
            "Valid launches of A, which is the baseline; each counts as one value.",
            lambda line: str(line["launches"][0]),
        ),
        Column("launches B", "The same of B.", lambda line: str(line["launches"][1])),
    ]
    for metric, speedup in zip(settings.metrics_of(mode), speedup_columns(settings, mode, apart=True), strict=True):
        name = METRICS[metric].name
        columns += [
            Column(f"{name} A", f"{name} of each launch; geometric mean over the launches of A.", _value(metric, 1)),
            Column(f"{name} B", "The same of B.", _value(metric, 0)),
            speedup,
        ]
    return columns


def _value(metric: Metric, side: int) -> Callable[[Line], str]:
    def cell(line: Line) -> str:
        sides = line["comparisons"][metric].sides
        return number(METRICS[metric].factor * sides[side].value) if sides else MISSING

    return cell


def _sides(two: TwoFolders) -> Iterator[str]:
    for letter, path, side in (("A", two.a, two.of_a), ("B", two.b, two.of_b)):
        yield f"{letter}: {path}: {_extent(side)}"
        for line in machine_lines(side.experiments):
            yield f"{letter}: {line}"


def _extent(side: Collection) -> str:
    records = [record for experiment in launched(side.experiments) for record in experiment.records]
    text = f"{extent(side.experiments)}."
    invalid = len(records) - sum(len(valid_records(experiment)) for experiment in launched(side.experiments))
    text += f" {several(invalid, 'launch')} flagged invalid and not used." if invalid else ""
    unread = side.beyond_planned + side.not_selected
    if unread:
        text += f" {several(unread, 'record')} that its summary does not select not read; --all takes all."
    return text


def _subject(rows: Sequence[Row]) -> Iterator[str]:
    """What of engine and machine differs, and so is what the speed-ups are about."""
    found = [difference for row in rows for difference in row.against.differences]
    groups = [group for group in ("engine", "machine") if any(d.group == group for d in found)]
    if not any(row.against.other for row in rows):
        yield "Nothing: see below."
    elif not groups:
        yield "Engine and machine agree: two times of measuring."
    elif len(groups) == 1:
        yield f"The {groups[0]}, and nothing else of engine and machine (A -> B):"
    else:
        yield "Engine and machine at once, as --differ allows: what either contributes can not be told (A -> B):"
    yield from _told(rows, groups)


def _warnings(rows: Sequence[Row]) -> Iterator[str]:
    for line in _told(rows, ["circumstance"]):
        yield f"differs too (A -> B): {line}"


def _told(rows: Sequence[Row], groups: Sequence[str]) -> Iterator[str]:
    by_fact: dict[Difference, list[str]] = {}
    for row in rows:
        for difference in row.against.differences:
            if difference.group in groups:
                by_fact.setdefault(difference, []).append(row.name)
    amount = sum(row.against.other is not None for row in rows)
    for difference, names in by_fact.items():
        yield f"{difference} ({those(names, amount)})"


def _csv(rows: Sequence[Row]) -> str:
    """One line for each experiment and metric; a number that does not exist is empty."""
    lines = [
        {
            "mode": row.experiment.mode,
            "platform": row.experiment.platform,
            "model": row.experiment.model,
            "workload": row.experiment.workload,
            "quant": row.quant_label,
            "experiment_a": other.experiment if (other := row.against.other) else None,
            "experiment_b": row.experiment.experiment,
            "metric": metric,
            "launches_a": _launches(row)[0],
            "launches_b": _launches(row)[1],
            "value_a": comparison.sides[1].value if comparison.sides else None,
            "value_b": comparison.sides[0].value if comparison.sides else None,
            "speedup": comparison.speedup,
            "speedup_low": comparison.low,
            "speedup_high": comparison.high,
            "p_adjusted": comparison.p_adjusted,
            "minimal_detectable_difference": comparison.minimal_detectable_difference,
            "verdict": comparison.verdict,
            "reason": comparison.reason or None,
            "differences": "; ".join(map(str, row.against.differences)) or None,
        }
        for row in rows
        for metric, comparison in row.comparisons.items()
    ]
    return pd.DataFrame(lines).to_csv(index=False, lineterminator="\n")
