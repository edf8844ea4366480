"""Compare two results folders: a summary of one with the other as its baseline, in a layout for two sides."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from rollout_bench.analysis.timed.baselines import valid_records
from rollout_bench.analysis.timed.collection import collect
from rollout_bench.analysis.timed.comparison import Comparison
from rollout_bench.analysis.timed.earlier import in_common
from rollout_bench.analysis.timed.experiments import Earlier, ResultSet, TimedExperiment, launched
from rollout_bench.analysis.timed.facts import Group
from rollout_bench.analysis.timed.rows import Row
from rollout_bench.contracts.axes import name_of
from rollout_bench.contracts.modes import mode_of
from rollout_bench.contracts.store import check_results_folder
from rollout_bench.core.errors import UserError, near_miss
from rollout_bench.core.numbers import MISSING, first_few, several
from rollout_bench.numbers.registry import NUMBERS, MetricName
from rollout_bench.plan.config import ComparisonSettings
from rollout_bench.report.conclusions import conclusions_apart
from rollout_bench.report.headings import speedup_column
from rollout_bench.report.notes import damage_lines, lines_of_side
from rollout_bench.report.pack import opened_pack
from rollout_bench.report.parts import Findings
from rollout_bench.report.prose import Section, all_or_names, definitions, sections
from rollout_bench.report.rendering import csv_text, markdown, terminal
from rollout_bench.report.state import plan_of_summary, results_of
from rollout_bench.report.verdicts import differing, verdict_values
from rollout_bench.report.views import Column, View, view, without_empty

LEGEND = (
    "^ faster, v slower, ~ inconclusive or too small to matter, ? no verdict. compare.md (--out) defines columns and "
    "verdicts."
)
"""Text below the tables on the terminal, in place of definitions."""


@dataclass(frozen=True)
class Compared:
    """The contents of compare.md and compare.csv, the text for the terminal, errors of unread files, and findings.

    `only_in_a` and `only_in_b` are the experiments that the other side lacks. `alternated` is whether launches of A and
    B alternated on one machine.
    """

    text: str
    markdown: str
    csv: str
    damaged: tuple[UserError, ...]
    findings: Findings
    only_in_a: tuple[TimedExperiment, ...]
    only_in_b: tuple[TimedExperiment, ...]
    alternated: bool


def compare_folders(
    a: Path, b: Path, settings: ComparisonSettings, differ: Sequence[str] = (), everything: bool = False
) -> Compared:
    """Compare the common experiments of two results folders: a summary of `b` with the results of `a` as its baseline.

    Args:
        a: the earlier results.
        b: the results whose speed-ups are shown.
        settings: metrics and rules of the verdicts.
        differ: groups that may differ, engine or machine; empty: either one of them.
        everything: read all records, whatever the summaries in the folders select.

    Raises:
        UserError: a folder has no usable records, both folders are the same, they have no experiment in common, or none
            of these may be compared.
    """
    of_a = _selection_of(a, settings, everything)
    if a.resolve() == b.resolve():
        raise UserError(f"{a} and {b} are the same folder", "name two results folders, the earlier one first")
    of_b = _selection_of(b, settings, everything)
    measured_a, measured_b = _measured(a, of_a), _measured(b, of_b)
    common = in_common(measured_b, measured_a)
    if not common:
        raise _nothing_in_common(a, measured_a, b, measured_b)
    # The planned number of launches of B no longer matters: all are compared, by a test that looks once.
    collection = replace(
        of_b,
        experiments=common,
        baseline={},
        comparison=settings,
        precision=None,
        earlier=Earlier(str(a), measured_a, of=str(b), differ=tuple(differ)),
    )
    findings = Findings(collection, b)
    rows = findings.rows
    refused = [row.against.refused for row in rows if row.against.refused]
    if refused and not any(row.against.other for row in rows):
        raise refused[0]
    modes = dict.fromkeys(mode_of(row.experiment.mode) for row in rows)
    views = without_empty(
        view("B over A: ", title, _columns(findings, [entry.of for entry in entries if entry.of]), entries)
        for mode in modes
        for title, entries in findings.entries(mode)
    )
    only_in = _without(measured_a, in_common(measured_a, measured_b)), _without(measured_b, common)
    about = (
        Section("A and B", (*_side_lines(f"A: {a}", of_a), *_side_lines(f"B: {b}", of_b))),
        *(
            Section(f"Only in {side}, not compared", tuple(map(name_of, experiments)))
            for side, experiments in zip("AB", only_in, strict=True)
        ),
    )
    return _comparison_files(findings, views, about, (*of_a.damaged, *of_b.damaged), only_in)


def _comparison_files(
    findings: Findings,
    views: Sequence[View],
    about: Sequence[Section],
    damaged: tuple[UserError, ...],
    only_in: tuple[tuple[TimedExperiment, ...], tuple[TimedExperiment, ...]],
) -> Compared:
    """Return the files of a comparison; `about` are the sections on both sides, and on what only one of them has."""
    rows, settings = findings.rows, findings.collection.comparison
    sides, *alone = about
    answers = conclusions_apart(rows)
    pairs = [(row.experiment, other) for row in rows if (other := row.against.other)]
    alternated = bool(pairs) and all(_alternated(*pair) for pair in pairs)
    found = (
        Section("Damaged", damage_lines(damaged)),
        sides,
        Section("What is compared", tuple(_difference_lines(rows))),
        Section("Warnings", tuple(f"differs too (A -> B): {line}" for line in _differing(rows, ["circumstance"]))),
        Section("No verdict", findings.footnotes),
        *alone,
    )
    shown = [section for section in found if section.items]
    values = verdict_values(rows, settings, apart=True) | {"differing": {}, "alternated": alternated}
    methods = [
        *sections("verdicts", **values),
        *definitions("Definitions", views),
    ]
    amount = len(launched(experiment for experiment, _ in pairs))
    order = (
        "Their launches alternated, so slow drift of the machine affected A and B alike."
        if alternated
        else "They were not interleaved: whatever drifted between A and B is part of each speed-up."
    )
    status = f"{several(amount, 'experiment')} of B compared with A. {order}"
    status = status if pairs else "Nothing of B is compared with A."
    title = "Comparison of two results folders"
    return Compared(
        text=terminal(status, views, shown, answers, legend=LEGEND),
        markdown=markdown(status, views, [*shown, *methods], pictures={}, title=title, answers=answers),
        csv=_csv(rows),
        damaged=damaged,
        findings=findings,
        only_in_a=only_in[0],
        only_in_b=only_in[1],
        alternated=alternated,
    )


def _alternated(*sides: TimedExperiment) -> bool:
    """Return whether both sides ran on one machine, one launch of either in each round, and none at the same time."""
    launches = sorted(
        (record.started_at, side, record.environment.hostname)
        for side, experiment in enumerate(sides)
        for record in valid_records(experiment)
    )
    times, order, hosts = zip(*launches, strict=True)
    rounds = ({*order[first : first + 2]} for first in range(0, len(order), 2))
    return len({*hosts}) == 1 and len({*times}) == len(times) and all(each == {0, 1} for each in rounds)


def _selection_of(folder: Path, comparison: ComparisonSettings, everything: bool) -> ResultSet:
    """Return the selection of the summary in `folder`; all experiments without a summary.

    `folder` is a results folder, the folder of a summary that is kept in one, or a pack.

    Raises:
        UserError: it has no record of a launch.
    """
    folder = opened_pack(folder) if folder.is_file() else folder
    results = results_of(folder)
    check_results_folder(results)
    return collect(results, None if everything else plan_of_summary(folder), comparison)


def _measured(folder: Path, collection: ResultSet) -> tuple[TimedExperiment, ...]:
    experiments = tuple(e for e in collection.experiments if e.records)
    if not experiments and collection.damaged:
        raise collection.damaged[0]
    if not experiments:
        raise UserError(
            f"{folder}: nothing of what its summary selects is measured", "add --all to take every record that is there"
        )
    return experiments


def _nothing_in_common(a: Path, of_a: Sequence[TimedExperiment], b: Path, of_b: Sequence[TimedExperiment]) -> UserError:
    names_a, names_b = (
        list(dict.fromkeys(f"{name_of(e)} ({e.mode}, {e.platform})" for e in side)) for side in (of_a, of_b)
    )
    near = [(name, close) for name in names_b if (close := near_miss(name, names_a))]
    nearest = f"nearest are '{near[0][1]}' and '{near[0][0]}': " if near else ""
    return UserError(
        f"no experiment in common: {a} has {first_few(names_a)}; {b} has {first_few(names_b)}",
        f"{nearest}measure the same model, quant and workload under the same names in both",
    )


def _without(experiments: Sequence[TimedExperiment], common: Sequence[TimedExperiment]) -> tuple[TimedExperiment, ...]:
    places = {e.place for e in common}
    return tuple(e for e in experiments if e.place not in places)


def _columns(findings: Findings, rows: Sequence[Row]) -> list[Column[Row]]:
    columns: list[Column[Row]] = [
        Column(
            "launches A",
            "Valid launches of A, which is the baseline; each counts as one value.",
            lambda row: str(len(valid_records(row.against.other))) if row.against.other else "0",
        ),
        Column(
            "launches B",
            "Valid launches of B; each counts as one value.",
            lambda row: str(len(valid_records(row.experiment))),
        ),
    ]
    for metric in dict.fromkeys(metric for row in rows for metric in row.comparisons):
        name = NUMBERS[metric].header
        columns += [
            Column(f"{name} A", f"{name} of each launch; geometric mean over the launches of A.", _value(metric, 1)),
            Column(f"{name} B", f"{name} of each launch; geometric mean over the launches of B.", _value(metric, 0)),
            speedup_column(metric, findings.collection.comparison, findings.notes, apart=True),
        ]
    return columns


def _value(metric: MetricName, side: int) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        sides = row.comparisons[metric].sides if metric in row.comparisons else None
        return NUMBERS[metric].text(sides[side].value) if sides else MISSING

    return cell


def _side_lines(name: str, side: ResultSet) -> Iterator[str]:
    """Yield a line on the launches of a side, then one for each of its machines."""
    first, *machines = lines_of_side(side.experiments, side.beyond_planned + side.not_selected)
    yield f"{name}: {first}"
    for line in machines:
        yield f"{name[0]}: {line}"


def _difference_lines(rows: Sequence[Row]) -> Iterator[str]:
    """Yield whether engine, machine or both differ, then each difference."""
    differences = [difference for row in rows for difference in row.against.differences]
    groups: list[Group] = [group for group in ("engine", "machine") if any(d.group == group for d in differences)]
    if not any(row.against.other for row in rows):
        yield "Nothing: see below."
    elif not groups:
        yield "Engine and machine agree; the launches were measured at different times."
    elif len(groups) == 1:
        yield f"The {groups[0]}, and nothing else of engine and machine (A -> B):"
    else:
        yield "Engine and machine both differ, as --differ allows: the effect of each alone is unknown (A -> B):"
    yield from _differing(rows, groups)


def _differing(rows: Sequence[Row], groups: Sequence[Group]) -> Iterator[str]:
    compared = sum(row.against.other is not None for row in rows)
    for fact, names in differing(rows, groups).items():
        yield f"{fact} ({all_or_names(names, compared)})"


def _csv(rows: Sequence[Row]) -> str:
    lines = [_line(row, metric, comparison) for row in rows for metric, comparison in row.comparisons.items()]
    return csv_text(pd.DataFrame(lines))


def _line(row: Row, metric: MetricName, comparison: Comparison) -> dict[str, object]:
    other = row.against.other
    return {
        "mode": row.experiment.mode,
        "platform": row.experiment.platform,
        **row.axes,
        "experiment_a": other.experiment if other else None,
        "experiment_b": row.experiment.experiment,
        "metric": metric,
        "launches_a": len(valid_records(other)) if other else 0,
        "launches_b": len(valid_records(row.experiment)),
        "value_a": comparison.sides[1].value if comparison.sides else None,
        "value_b": comparison.sides[0].value if comparison.sides else None,
        "speedup": comparison.speedup,
        "speedup_low": comparison.low,
        "speedup_high": comparison.high,
        "p_adjusted": comparison.p_adjusted,
        "verdict": comparison.verdict,
        "reason": comparison.reason or None,
        "differences": "; ".join(map(str, row.against.differences)) or None,
    }
