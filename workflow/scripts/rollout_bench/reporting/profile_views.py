"""The tables of profile mode: where a step's time goes, what a quant changes in it, predicted against measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rollout_bench.analysis.profiles.breakdown import Breakdown, place
from rollout_bench.analysis.profiles.changes import Change, changes, linear_with_quantize, together
from rollout_bench.analysis.profiles.checks import agreement, bound, doubts
from rollout_bench.analysis.profiles.operators import Operator, operators
from rollout_bench.analysis.profiles.profiled import (
    CATEGORIES,
    HOST_GAP,
    LINEAR,
    OTHER,
    PHASES,
    LeftOut,
    Part,
    Profiled,
)
from rollout_bench.analysis.profiles.reconciliation import Reconciliation
from rollout_bench.analysis.profiles.report import ProfileReport
from rollout_bench.analysis.statistics import mean
from rollout_bench.records.profile import Phase
from rollout_bench.reporting.columns import Column, Line
from rollout_bench.reporting.numbers import MISSING
from rollout_bench.reporting.profile_columns import (
    OPERATORS,
    PART,
    RECONCILED,
    STEP,
    TIMED,
    category_column,
    change_columns,
)
from rollout_bench.reporting.profile_words import REST, operator_word, part_word, role_word, shapes_word
from rollout_bench.reporting.view import View, view

MOST_CATEGORIES = 6
"""Columns of categories that a table has room for, beside the time that the device waits and the rest."""

SMALL = 0.01
"""A part below this share of every step has no column and no line of its own."""

MOST_OPERATORS = 5
"""Of each phase that are shown."""


def profile_views(report: ProfileReport) -> list[View]:
    """The tables of each platform; those on differences only where something is compared."""
    tables: list[View] = []
    for platform in dict.fromkeys(each.platform for each in report.profiled):
        own = [each for each in report.profiled if each.platform == platform]
        pairs = [found for found in report.reconciliations if found.own.platform == platform]
        title = f"profile, {platform}"
        without = [_names(each, each.reason) for each in report.left_out if each.platform == platform]
        uncompared = [_names(each, reason) for each, reason in report.uncompared if each.platform == platform]
        tables += [*_steps(title, report, own, without), *_timed(title, report, own, without)]
        tables += [*_changes(title, report, pairs, uncompared), *_reconciled(title, pairs, uncompared)]
        tables += _operators(title, report, own, without)
    return tables


def by_phase(report: ProfileReport, profiled: Sequence[Profiled]) -> Iterator[tuple[Profiled, Breakdown]]:
    """The phases of `profiled`, those of one model and workload together, quants of a phase side by side."""
    for table in dict.fromkeys(each.table for each in profiled):
        for phase in PHASES:
            for each in profiled:
                if each.table == table and phase in report.of(each):
                    yield each, report.of(each)[phase]


def _names(profiled: Profiled | LeftOut, empty_because: str = "") -> Line:
    names = {"model": profiled.model, "workload": profiled.workload, "quant": profiled.quant}
    return names | {"empty_because": empty_because}


def _steps(title: str, report: ProfileReport, profiled: Sequence[Profiled], without: Sequence[Line]) -> Iterator[View]:
    found = list(by_phase(report, profiled))
    if not found:
        return
    shown = shown_categories([breakdown for _, breakdown in found])
    lines = []
    for each, breakdown in found:
        parts = {category: breakdown.of_category(category) for category in CATEGORIES}
        rest = sum(us for category, us in parts.items() if category not in shown)
        lines.append(
            _names(each)
            | {"phase": breakdown.phase, "step_us": breakdown.step_us}
            | {"parts": {**{category: parts[category] for category in shown}, REST: rest}}
        )
    columns: list[Column] = [category_column(category) for category in shown]
    if any(line["parts"][REST] > 0 for line in lines):
        columns.append(category_column(REST))
    yield view("Where a step's time goes, ms (%): ", title, (*STEP, *columns), lines, without)


def shown_categories(found: Sequence[Breakdown]) -> list[str]:
    """The categories that have columns, in their order."""
    greatest = {category: max(breakdown.share(category) for breakdown in found) for category in CATEGORIES}
    candidates = [category for category in CATEGORIES if category != HOST_GAP and greatest[category] >= SMALL]
    most = sorted(candidates, key=lambda category: -greatest[category])[:MOST_CATEGORIES]
    return [category for category in CATEGORIES if category in most or category == HOST_GAP]


def _timed(title: str, report: ProfileReport, profiled: Sequence[Profiled], without: Sequence[Line]) -> Iterator[View]:
    lines = []
    for each, breakdown in by_phase(report, profiled):
        sample = breakdown.sample
        lines.append(
            _names(each)
            | {
                "phase": breakdown.phase,
                "steps": breakdown.steps,
                "tokens": sample.tokens if sample else None,
                "unprofiled_s": mean(sample.unprofiled_s) if sample and sample.unprofiled_s else None,
                "profiled_s": mean(sample.profiled_s) if sample and sample.profiled_s else None,
                "overhead": sample.overhead if sample else None,
                "agreement": agreement(breakdown),
                "waits": breakdown.share(HOST_GAP),
                "bound": bound(breakdown),
                "other": breakdown.traced_share(OTHER),
                "flags": ", ".join(doubt.code for doubt in doubts(breakdown)),
            }
        )
    if lines:
        columns = TIMED if any(line["flags"] for line in lines) else TIMED[:-1]
        yield view("Steps, timed and traced: ", title, columns, lines, without)


def _changes(
    title: str, report: ProfileReport, pairs: Sequence[Reconciliation], without: Sequence[Line]
) -> Iterator[View]:
    """One line for each part that takes some share of a step in either; their last one is the whole step."""
    lines: list[Line] = []
    for pair in pairs:
        sides = report.of(pair.own), report.of(pair.baseline)
        phases = [phase for phase in PHASES if all(phase in side for side in sides)]
        found = {phase: changes(sides[1][phase].scaled, sides[0][phase].scaled) for phase in phases}
        steps = {phase: sides[1][phase].step_us for phase in phases}
        for word, by in _lines_of(found, steps):
            lines.append(_names(pair.own) | {"part": word, "changes": by})
    phases = [phase for phase in PHASES if any(phase in line["changes"] for line in lines)]
    if phases:
        columns = [column for phase in phases for column in change_columns(phase)]
        yield view("Speed-up by role: ", title, (PART, *columns), lines, without)


def _lines_of(found: dict[Phase, list[Change]], steps: dict[Phase, float]) -> Iterator[tuple[str, dict[Phase, Change]]]:
    if not found:
        return
    parts = sorted({change.part for each in found.values() for change in each}, key=place)
    by = {part: {phase: _of(each, part) for phase, each in found.items()} for part in parts}
    large = [part for part in parts if any(_matters(by[part][phase], steps[phase]) for phase in found)]
    roles = [part for part in large if part[0] == LINEAR and part[1]]
    yield "linear", {phase: together(each, (LINEAR,), (LINEAR, "")) for phase, each in found.items()}
    for part in roles:
        yield role_word(part), by[part]
    if any(change.part[0] == "quantize" for each in found.values() for change in each):
        yield "quantize", {phase: together(each, ("quantize",), ("quantize", "")) for phase, each in found.items()}
        yield "= linear + quantize", {phase: linear_with_quantize(each) for phase, each in found.items()}
    others = [part for part in large if part[0] not in (LINEAR, "quantize")]
    for part in others:
        yield part_word(part), by[part]
    small = [part for part in parts if part[0] not in (LINEAR, "quantize") and part not in others]
    if small:
        yield REST, {phase: _sum([by[part][phase] for part in small]) for phase in found}
    yield "whole step", {phase: _sum(each) for phase, each in found.items()}


def _of(found: Sequence[Change], part: Part) -> Change:
    return next((change for change in found if change.part == part), Change(part, 0.0, 0.0))


def _matters(change: Change, step_us: float) -> bool:
    return max(change.baseline, change.own) >= SMALL * step_us


def _sum(found: Sequence[Change]) -> Change:
    return Change((REST, ""), sum(change.baseline for change in found), sum(change.own for change in found))


def _reconciled(title: str, pairs: Sequence[Reconciliation], without: Sequence[Line]) -> Iterator[View]:
    lines = [_names(pair.own, pair.reason if pair.unmeasured else "") | {"pair": pair} for pair in pairs]
    if lines:
        yield view("Predicted against measured: ", title, RECONCILED, lines, without)


def _operators(
    title: str, report: ProfileReport, profiled: Sequence[Profiled], without: Sequence[Line]
) -> Iterator[View]:
    lines = [
        _names(each) | {"phase": breakdown.phase} | _operator(operator)
        for each, breakdown in by_phase(report, profiled)
        for operator in operators(each, breakdown)[:MOST_OPERATORS]
    ]
    if lines:
        yield view("Operators that take most: ", title, OPERATORS, lines, without)


def _operator(operator: Operator) -> Line:
    return {
        "operator": operator_word(operator.name),
        "part": part_word((operator.category, operator.role)),
        "shapes": shapes_word(operator.shapes) or MISSING,
        "calls": operator.calls,
        "us": operator.us,
        "share": operator.share,
    }
