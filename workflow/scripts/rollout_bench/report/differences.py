"""Two results folders compared: what each selects, whether they may be compared, and the text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from rollout_bench.analysis.timed.collection import collect
from rollout_bench.analysis.timed.columns import table
from rollout_bench.analysis.timed.experiments import Collection, Earlier, TimedExperiment, launched
from rollout_bench.analysis.timed.partners import Difference, counterparts, in_common, refusals, valid_records
from rollout_bench.analysis.timed.rows import Row, rows_of
from rollout_bench.contracts.metrics import METRICS, MetricName
from rollout_bench.contracts.store import check_results_folder
from rollout_bench.core.errors import UserError, near_miss
from rollout_bench.core.numbers import MISSING, number, several
from rollout_bench.plan.config import ComparisonSettings
from rollout_bench.report.headings import Column, Line, Views, lines_of, speedup_columns, tables_of, view
from rollout_bench.report.notes import damage, extent, machine_lines
from rollout_bench.report.prose import Section, sections, those
from rollout_bench.report.rendering import markdown, terminal
from rollout_bench.report.state import plan_of_summary
from rollout_bench.report.verdicts import verdict_values

_SHOWN = 5
"""Names that a message lists before it counts."""


@dataclass(frozen=True)
class TwoFolders:
    """What each folder selects, `of_a` and `of_b`; `collection` has those of B that A has too, and A's as earlier.

    `damaged` says what is wrong with each file of either that can't be used.
    """

    a: Path
    b: Path
    of_a: Collection
    of_b: Collection
    collection: Collection
    damaged: tuple[UserError, ...]

    @property
    def only_in_a(self) -> tuple[TimedExperiment, ...]:
        """What B has no counterpart for."""
        return _without(self.of_a.experiments, in_common(self.of_a.experiments, self.of_b.experiments))

    @property
    def only_in_b(self) -> tuple[TimedExperiment, ...]:
        """What A has no counterpart for."""
        return _without(self.of_b.experiments, self.collection.experiments)


def read_two(
    a: Path, b: Path, settings: ComparisonSettings, differ: Sequence[str] = (), everything: bool = False
) -> TwoFolders:
    """Reads two results folders, each as its summary selects, or all there is with `everything`.

    Raises:
        UserError: a folder holds no records or none that can be used, both are the same, they have nothing in common,
            or they differ in more than may differ: `differ` names what may, of engine and machine; empty: one of them.
    """
    for folder in (a, b):
        check_results_folder(folder)
    if a.resolve() == b.resolve():
        raise UserError(f"{a} and {b} are the same folder", "name two results folders, the earlier one first")
    all_of_a, all_of_b = (collect(f, None if everything else plan_of_summary(f)) for f in (a, b))
    of_a, of_b = _measured(a, all_of_a), _measured(b, all_of_b)
    common = in_common(of_b.experiments, of_a.experiments)
    if not common:
        raise _nothing_in_common(a, of_a, b, of_b)
    earlier = Earlier(str(a), of_a.experiments, of=str(b), differ=tuple(differ))
    refused = refusals(common, counterparts(common, earlier), earlier)
    if refused:
        raise refused[0].error()
    baseline = {"results": str(a)}
    # How many launches B was to have is over: all that it has are compared, by a test that looks once.
    collection = replace(
        of_b, experiments=common, baseline=baseline, comparison=settings, precision=None, earlier=earlier
    )
    return TwoFolders(a, b, of_a, of_b, collection, (*all_of_a.damaged, *all_of_b.damaged))


def told(experiment: TimedExperiment) -> str:
    """What a message calls it: model, quant and workload."""
    return f"{experiment.model} {experiment.quant} {experiment.workload}"


def _measured(folder: Path, collection: Collection) -> Collection:
    """Those of `collection`, which was read from `folder`, that there are records of."""
    experiments = tuple(e for e in collection.experiments if e.records)
    if not experiments and collection.damaged:
        raise collection.damaged[0]
    if not experiments:
        raise UserError(
            f"{folder}: nothing of what its summary selects is measured", "add --all to take every record that is there"
        )
    return replace(collection, experiments=experiments)


def _nothing_in_common(a: Path, of_a: Collection, b: Path, of_b: Collection) -> UserError:
    names_a, names_b = ([_with_platform(e) for e in side.experiments] for side in (of_a, of_b))
    near = next(((name, close) for name in names_b if (close := near_miss(name, names_a))), None)
    remedy = "measure the same model, quant and workload under the same names in both"
    if near:
        remedy = f"nearest are '{near[1]}' and '{near[0]}': {remedy}"
    return UserError(f"no experiment in common: {a} has {_listed(names_a)}; {b} has {_listed(names_b)}", remedy)


def _with_platform(experiment: TimedExperiment) -> str:
    return f"{told(experiment)} ({experiment.mode}, {experiment.platform})"


def _listed(names: Sequence[str]) -> str:
    unique = list(dict.fromkeys(names))
    more = f" and {len(unique) - _SHOWN} more" if len(unique) > _SHOWN else ""
    return ", ".join(unique[:_SHOWN]) + more


def _without(experiments: Sequence[TimedExperiment], common: Sequence[TimedExperiment]) -> tuple[TimedExperiment, ...]:
    places = {(e.mode, e.experiment) for e in common}
    return tuple(e for e in experiments if (e.mode, e.experiment) not in places)


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
    found = [
        Section("Damaged", damage(two.damaged)),
        Section("A and B", tuple(_sides(two))),
        Section("What is compared", tuple(_subject(rows))),
        Section("Warnings", tuple(_warnings(rows))),
        Section("No verdict", footnotes),
        Section("Only in A, not compared", tuple(map(told, two.only_in_a))),
        Section("Only in B, not compared", tuple(map(told, two.only_in_b))),
        *sections("verdicts", **verdict_values(rows, settings, apart=True) | {"differing": {}}),
        Section("Definitions", tuple(f"{header}: {text}" for header, text in defined.items())),
    ]
    found = [section for section in found if section.items]
    amount = len(launched(row.experiment for row in rows if row.against.other is not None))
    status = (
        f"{several(amount, 'experiment')} of B compared with A. Nothing took turns: "
        "whatever drifted between A and B is part of each speed-up."
    )
    return Compared(
        text=terminal(status, tables, found),
        markdown=markdown(status, tables, found, figures=(), title="Comparison of two results folders"),
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
        name = METRICS[metric].header
        columns += [
            Column(f"{name} A", f"{name} of each launch; geometric mean over the launches of A.", _value(metric, 1)),
            Column(f"{name} B", "The same of B.", _value(metric, 0)),
            speedup,
        ]
    return columns


def _value(metric: MetricName, side: int) -> Callable[[Line], str]:
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
