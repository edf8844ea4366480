"""The tables of profile mode and their notes: time of a step by category, and changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rollout_bench.analysis.inside.breakdown import (
    Breakdown,
    Change,
    changes,
    linear_with_quantize,
    unknown,
)
from rollout_bench.analysis.inside.profile_report import (
    DEVICE_BOUND,
    HOST_BOUND,
    TRACE_OFF,
    UNKNOWN,
    ProfileReport,
    agreement,
    bound,
    doubts,
    profile_table,
)
from rollout_bench.analysis.inside.profiles import (
    CATEGORIES,
    HOST_GAP,
    LINEAR,
    OTHER,
    PHASES,
    QUANTIZE,
    LeftOut,
    ProfiledExperiment,
)
from rollout_bench.analysis.stats.intervals import mean
from rollout_bench.contracts.axes import title_of
from rollout_bench.contracts.inside import Phase
from rollout_bench.contracts.modes import PROFILE
from rollout_bench.core.numbers import MISSING, number, plain_percent, ratio
from rollout_bench.report.headings import LAUNCHES, Column, Line, View, told, view
from rollout_bench.report.parts import Findings, SummaryPart
from rollout_bench.report.prose import Section, sections

CATEGORY_WORDS = {"kv_cache": "KV cache", "memory_copy": "memory copy", HOST_GAP: "device waits"}
"""Display names of categories that differ from their keys."""

REST = "rest"
"""Categories and parts that are too small for a separate column or line."""

_NAME = 44
"""Characters of an operator's name in a note."""


def category_word(category: str) -> str:
    """Return the display name of a category."""
    return CATEGORY_WORDS.get(category, category)


def operator_word(name: str) -> str:
    """Return the name of an operator or kernel, shortened in the middle if long, as names of templates are."""
    return cut(" ".join(name.removeprefix("void ").split()), _NAME)


def cut(text: str, characters: int) -> str:
    """Return `text`, shortened in the middle if it has more than `characters`."""
    if len(text) <= characters:
        return text
    head = (characters - 3) * 2 // 3
    return f"{text[:head]}...{text[len(text) - (characters - 3 - head) :]}"


PHASE = Column(
    "phase",
    "Computation of the engine's steps. prefill: prompts; decode: one token per sequence; mixed: both.",
    lambda line: line["phase"],
    words=True,
)


_NO_DIFFERENCE = 1e-6
"""Relative difference of a part below which it is rounding."""


def _text(field: str) -> Callable[[Line], str]:
    return lambda line: line[field] or MISSING


def _number(field: str, digits: int = 3, factor: float = 1) -> Callable[[Line], str]:
    return lambda line: number(None if line[field] is None else factor * line[field], digits)


def _tokens(line: Line) -> str:
    return MISSING if line["tokens"] is None else f"{line['tokens']:,.0f}"


STEP = (
    PHASE,
    Column(
        "step ms",
        "Time of an engine step without the profiler; mean over the timed steps of the profile's launch. The "
        "following columns add up to it.",
        _number("step_us", 4, 1e-3),
    ),
)
"""Columns before the columns of categories."""

_CATEGORY = {
    "linear": "Matrix multiplications of linear layers.",
    "quantize": "Quantizing activations and dequantizing, if a separate operator does it.",
    HOST_GAP: "Time in which no operator runs on the device. On a CPU: the engine process's own work "
    "between operators.",
    "other": "Operators that match no rule; the notes list them.",
    REST: "All categories that are too small for a separate column.",
}


def category_column(category: str) -> Column:
    """Return the column of the time in one category, or in the rest."""

    def cell(line: Line) -> str:
        us = line["parts"][category]
        if us <= 0:
            return MISSING
        return f"{number(us / 1000, 3)} ({100 * us / line['step_us']:.0f})"

    return Column(category_word(category), _CATEGORY.get(category, ""), cell)


TIMED = (
    PHASE,
    Column("traced", "Number of steps in the traces of all ranks.", lambda line: f"{line['steps']:,d}"),
    Column("tokens", "Tokens computed in a step; mean over the timed steps.", _tokens),
    Column("step ms", "Mean time of a step without the profiler.", _number("unprofiled_s", 4, 1000)),
    Column("profiled ms", "Mean time of a step with the profiler.", _number("profiled_s", 4, 1000)),
    Column(
        "profiler overhead",
        "Profiled ms / step ms: the slowdown by the profiler.",
        lambda line: MISSING if line["overhead"] is None else f"{ratio(line['overhead'])}x",
    ),
    Column(
        "in trace %",
        "Duration of a step in the trace (from its start to the start of the next step) / profiled ms. If it deviates "
        f"from 100 % by more than {plain_percent(TRACE_OFF)}: flag trace_time.",
        _number("agreement", 3, 100),
    ),
    Column(
        "device waits %",
        "Share of a step, without the profiler, in which no operator runs on the device.",
        _number("waits", 3, 100),
    ),
    Column(
        "bound by",
        f"device: it waits for less than {plain_percent(DEVICE_BOUND)} of the step; host: for more than "
        f"{plain_percent(HOST_BOUND)}; else both.",
        _text("bound"),
        words=True,
    ),
    Column(
        "other %",
        f"Share of the traced step in operators that match no rule. Above {plain_percent(UNKNOWN)}: flag other.",
        _number("other", 2, 100),
    ),
    Column(
        "flags",
        "trace_time and other: see their columns. untimed: no step was timed without the profiler. unsteady: step "
        "times vary widely.",
        _text("flags"),
        words=True,
    ),
)


PART = Column(
    "part",
    "Category of operators. Linear + quantize is the total effect "
    "of a quantization. The rest contains parts below 1 % of a step.",
    lambda line: line["part"],
    words=True,
)


def saved(change: Change) -> float:
    """Return the saving of a part, with rounding errors as 0."""
    return 0.0 if abs(change.saved) < _NO_DIFFERENCE * max(change.baseline, change.own) else change.saved


def change_columns(phase: Phase) -> tuple[Column, Column, Column]:
    """Return the columns of own time, speed-up and difference in one phase."""

    def of(line: Line) -> Change | None:
        found: Change | None = line["changes"].get(phase)
        return found

    def own(line: Line) -> str:
        change = of(line)
        return MISSING if change is None or not (change.own or change.baseline) else number(change.own / 1000, 3)

    def faster(line: Line) -> str:
        change = of(line)
        return MISSING if change is None or change.speedup is None else f"{ratio(change.speedup)}x"

    def saves(line: Line) -> str:
        change = of(line)
        return MISSING if change is None or not (change.own or change.baseline) else number(saved(change) / 1000, 3)

    return (
        Column(f"{phase} ms", "Time of the part in a step of that phase, without the profiler.", own),
        Column(f"{phase} speed-up", "The baseline's time of the part / its own time.", faster),
        Column(
            f"{phase} saves ms",
            "The baseline's time minus the experiment's own; negative if it is slower. The parts add up to the saving "
            "of the whole step.",
            saves,
        ),
    )


MOST_CATEGORIES = 6
"""Maximum number of category columns in a table, besides the device's waiting and the rest."""

SMALL = 0.01
"""A part below this share of every step has no separate column or line."""


def profile_part(findings: Findings) -> SummaryPart:
    """Return the tables and notes of all profiles, with unreadable profiles at the top, and profile.csv."""
    inside = findings.inside
    report, tables = inside.profiles, profile_views(inside.profiles, findings.launches)
    found = bool(report.profiled or report.left_out)
    notes = profile_notes(report, tables)
    return SummaryPart(
        tables=tables,
        sections=[section for section in notes if section.heading != DEFINITIONS],
        definitions=[section for section in notes if section.heading == DEFINITIONS],
        warnings=[Section("Profiles that can't be read", inside.problems)] if inside.problems else [],
        files={"profile.csv": profile_table(report)} if found else {},
    )


def profile_views(report: ProfileReport, launches: Mapping[str, Line] | None = None) -> list[View]:
    """Return the tables of each platform; tables of differences only if profiles are compared.

    `launches` has the counts of launches of each experiment, by its place.
    """
    launches = launches or {}
    tables: list[View] = []
    for platform in dict.fromkeys(each.platform for each in report.profiled):
        own = [each for each in report.profiled if each.platform == platform]
        pairs = [(found, baseline) for found, baseline in report.pairs if found.platform == platform]
        title = f"profile, {platform}"
        without = [
            _names(each, each.reason) | launches.get(each.place, {})
            for each in report.left_out
            if each.platform == platform
        ]
        uncompared = [_names(each, reason) for each, reason in report.uncompared if each.platform == platform]
        tables += [*_steps(title, report, own, without, launches), *_timed(title, report, own, without)]
        tables += _changes(title, report, pairs, uncompared)
    return tables


def by_phase(
    report: ProfileReport, profiled: Sequence[ProfiledExperiment]
) -> Iterator[tuple[ProfiledExperiment, Breakdown]]:
    """Yield the phases of `profiled` by model and workload, with the quantizations of a phase side by side."""
    for table in dict.fromkeys(each.table for each in profiled):
        for phase in PHASES:
            for each in profiled:
                if each.table == table and phase in report.of(each):
                    yield each, report.of(each)[phase]


def _names(profiled: ProfiledExperiment | LeftOut, empty_because: str = "") -> Line:
    names = {"model": profiled.model, "workload": profiled.workload, "quant": profiled.quant}
    return names | {"empty_because": empty_because}


def _steps(
    title: str,
    report: ProfileReport,
    profiled: Sequence[ProfiledExperiment],
    without: Sequence[Line],
    launches: Mapping[str, Line],
) -> Iterator[View]:
    found = list(by_phase(report, profiled))
    if not found:
        return
    shown = shown_categories([breakdown for _, breakdown in found])
    lines = []
    for each, breakdown in found:
        parts = {category: breakdown.scaled.get(category, 0.0) for category in CATEGORIES}
        rest = sum(us for category, us in parts.items() if category not in shown)
        lines.append(
            _names(each)
            | launches.get(each.place, {})
            | {"phase": breakdown.phase, "step_us": breakdown.step_us}
            | {"parts": {**{category: parts[category] for category in shown}, REST: rest}}
        )
    columns: list[Column] = [category_column(category) for category in shown]
    if any(line["parts"][REST] > 0 for line in lines):
        columns.append(category_column(REST))
    yield view("Where a step's time goes, ms (%): ", title, (LAUNCHES, *STEP, *columns), lines, without)


def shown_categories(found: Sequence[Breakdown]) -> list[str]:
    """Return the categories with separate columns, in their order."""
    greatest = {category: max(breakdown.share(category) for breakdown in found) for category in CATEGORIES}
    candidates = [category for category in CATEGORIES if category != HOST_GAP and greatest[category] >= SMALL]
    most = sorted(candidates, key=lambda category: -greatest[category])[:MOST_CATEGORIES]
    return [category for category in CATEGORIES if category in most or category == HOST_GAP]


def _timed(
    title: str, report: ProfileReport, profiled: Sequence[ProfiledExperiment], without: Sequence[Line]
) -> Iterator[View]:
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
    title: str,
    report: ProfileReport,
    pairs: Sequence[tuple[ProfiledExperiment, ProfiledExperiment]],
    without: Sequence[Line],
) -> Iterator[View]:
    """Yield the table of changes: a line for each large enough part of either side; the last line is the whole step."""
    lines: list[Line] = []
    for own, baseline in pairs:
        sides = report.of(own), report.of(baseline)
        phases = [phase for phase in PHASES if all(phase in side for side in sides)]
        found = {phase: changes(sides[1][phase].scaled, sides[0][phase].scaled) for phase in phases}
        steps = {phase: sides[1][phase].step_us for phase in phases}
        for word, by in _lines_of(found, steps):
            lines.append(_names(own) | {"part": word, "changes": by})
    phases = [phase for phase in PHASES if any(phase in line["changes"] for line in lines)]
    if phases:
        columns = [column for phase in phases for column in change_columns(phase)]
        yield view("Speed-up by category: ", title, (PART, *columns), lines, without)


def _lines_of(found: dict[Phase, list[Change]], steps: dict[Phase, float]) -> Iterator[tuple[str, dict[Phase, Change]]]:
    if not found:
        return
    parts = sorted({change.part for each in found.values() for change in each}, key=CATEGORIES.index)
    by = {part: {phase: _of(each, part) for phase, each in found.items()} for part in parts}
    others = [
        part
        for part in parts
        if part not in (LINEAR, QUANTIZE) and any(_matters(by[part][phase], steps[phase]) for phase in found)
    ]
    if LINEAR in by:
        yield LINEAR, by[LINEAR]
    if QUANTIZE in by:
        yield QUANTIZE, by[QUANTIZE]
        yield "= linear + quantize", {phase: linear_with_quantize(each) for phase, each in found.items()}
    for part in others:
        yield category_word(part), by[part]
    small = [part for part in parts if part not in (LINEAR, QUANTIZE, *others)]
    if small:
        yield REST, {phase: _sum([by[part][phase] for part in small]) for phase in found}
    yield "whole step", {phase: _sum(each) for phase, each in found.items()}


def _of(found: Sequence[Change], part: str) -> Change:
    return next((change for change in found if change.part == part), Change(part, 0.0, 0.0))


def _matters(change: Change, step_us: float) -> bool:
    return max(change.baseline, change.own) >= SMALL * step_us


def _sum(found: Sequence[Change]) -> Change:
    return Change(REST, sum(change.baseline for change in found), sum(change.own for change in found))


TRACES, DEFINITIONS = "Traces", "Definitions, profile"
"""Headings of the section with links to the traces, and of the definitions of columns."""

_UNKNOWN_NAMES = 5
"""Maximum number of operators without a rule that a note names."""


def profile_notes(report: ProfileReport, tables: Sequence[View]) -> list[Section]:
    """Return the non-empty sections below the tables of `profile_views`."""
    if not report.profiled:
        return []
    found = sections(
        PROFILE.name,
        profiles=[_values_of_profile(report, each) for each in report.profiled],
        named_operators=_UNKNOWN_NAMES,
        columns=list(_defined(tables)),
    )
    links = tuple((f"Traces of {title_of(each, each.quant)}", each.traces) for each in report.profiled)
    return [replace(section, links=links) if section.heading == TRACES else section for section in found]


def _values_of_profile(report: ProfileReport, profiled: ProfiledExperiment) -> dict[str, Any]:
    return {
        "name": title_of(profiled, profiled.quant),
        "phases": [
            {"name": phase, "flags": doubts(breakdown), "unknown": _unknown(profiled, breakdown)}
            for phase, breakdown in report.of(profiled).items()
        ],
    }


def _unknown(profiled: ProfiledExperiment, breakdown: Breakdown) -> list[tuple[str, float]]:
    """Return operators without a rule, with their share of the step in percent; empty unless they need a flag."""
    if breakdown.traced_share(OTHER) <= UNKNOWN:
        return []
    return [(operator_word(name), 100 * share) for name, share in unknown(profiled, breakdown)]


def _defined(tables: Sequence[View]) -> Iterator[Column]:
    """Yield the shown columns of `tables` that have a definition, each once.

    Columns of several phases share their definition.
    """
    defined: set[str] = set()
    for column in (column for table in told(tables) for column in table.columns):
        if column.definition and not {column.header, column.definition} & defined:
            defined |= {column.header, column.definition}
            yield column
