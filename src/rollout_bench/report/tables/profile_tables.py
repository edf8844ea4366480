"""The tables of profile mode and their notes: time of a step by category, and changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rollout_bench.analysis.inside.breakdown import (
    HOST_GAP,
    LINEAR,
    OTHER,
    PHASES,
    QUANTIZE,
    Breakdown,
    Change,
    changes,
    linear_with_quantize,
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
from rollout_bench.analysis.inside.profiles import ProfiledExperiment
from rollout_bench.analysis.stats.intervals import mean
from rollout_bench.analysis.traces.categories import CATEGORIES
from rollout_bench.contracts.axes import title_of
from rollout_bench.contracts.inside import Phase
from rollout_bench.contracts.modes import PROFILE
from rollout_bench.core.numbers import MISSING, number, plain_percent, ratio
from rollout_bench.report.parts import Findings, SummaryPart
from rollout_bench.report.prose import Section, sections
from rollout_bench.report.views import LAUNCHES, Column, Entry, View, told, view

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


PHASE = Column[Breakdown](
    "phase",
    "Computation of the engine's steps. prefill: prompts; decode: one token per sequence; mixed: both.",
    lambda found: found.phase,
    words=True,
)

_NO_DIFFERENCE = 1e-6
"""Relative difference of a part below which it is rounding."""

STEP = (
    PHASE,
    Column[Breakdown](
        "step ms",
        "Time of an engine step without the profiler; mean over the timed steps of the profile's launch. The "
        "following columns add up to it.",
        lambda found: number(found.step_us / 1000),
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


def category_column(word: str, categories: Sequence[str]) -> Column[Breakdown]:
    """Return the column of the time in `categories` together."""

    def cell(found: Breakdown) -> str:
        us = sum(found.scaled.get(category, 0.0) for category in categories)
        return MISSING if us <= 0 else f"{number(us / 1000, 3)} ({100 * us / found.step_us:.0f})"

    return Column(category_word(word), _CATEGORY.get(word, ""), cell)


def _mean_ms(seconds: Sequence[float]) -> str:
    return number(1000 * mean(seconds) if seconds else None)


def _tokens(found: Breakdown) -> str:
    return MISSING if found.tokens is None else f"{found.tokens:,.0f}"


def _overhead(found: Breakdown) -> str:
    return MISSING if found.overhead is None else f"{ratio(found.overhead)}x"


def _percent(share: float | None, digits: int = 3) -> str:
    return number(None if share is None else 100 * share, digits)


TIMED: tuple[Column[Breakdown], ...] = (
    PHASE,
    Column("traced", "Number of steps in the traces of all ranks.", lambda found: f"{found.steps:,d}"),
    Column("tokens", "Tokens computed in a step; mean over the timed steps.", _tokens),
    Column(
        "step ms",
        "Mean time of a step without the profiler.",
        lambda found: _mean_ms(found.unprofiled_s),
    ),
    Column("profiled ms", "Mean time of a step with the profiler.", lambda found: _mean_ms(found.profiled_s)),
    Column("profiler overhead", "Profiled ms / step ms: the slowdown by the profiler.", _overhead),
    Column(
        "in trace %",
        "Duration of a step in the trace (from its start to the start of the next step) / profiled ms. If it deviates "
        f"from 100 % by more than {plain_percent(TRACE_OFF)}: flag trace_time.",
        lambda found: _percent(agreement(found)),
    ),
    Column(
        "device waits %",
        "Share of a step, without the profiler, in which no operator runs on the device.",
        lambda found: _percent(found.share(HOST_GAP)),
    ),
    Column(
        "bound by",
        f"device: it waits for less than {plain_percent(DEVICE_BOUND)} of the step; host: for more than "
        f"{plain_percent(HOST_BOUND)}; else both.",
        lambda found: bound(found) or MISSING,
        words=True,
    ),
    Column(
        "other %",
        f"Share of the traced step in operators that match no rule. Above {plain_percent(UNKNOWN)}: flag other.",
        lambda found: _percent(found.traced_share(OTHER), 2),
    ),
    Column(
        "flags",
        "trace_time and other: see their columns. untimed: no step was timed without the profiler. unsteady: step "
        "times vary widely.",
        lambda found: ", ".join(doubt.code for doubt in doubts(found)) or MISSING,
        words=True,
    ),
)

Changes = Mapping[Phase, Change]
"""The changes of one part, by phase."""

PART = Column[Changes](
    "part",
    "Category of operators. Linear + quantize is the total effect "
    "of a quantization. The rest contains parts below 1 % of a step.",
    words=True,
)


def saved(change: Change) -> float:
    """Return the saving of a part, with rounding errors as 0."""
    return 0.0 if abs(change.saved) < _NO_DIFFERENCE * max(change.baseline, change.own) else change.saved


def change_columns(phase: Phase) -> tuple[Column[Changes], ...]:
    """Return the columns of own time, speed-up and difference in one phase."""

    def of(text: Callable[[Change], str]) -> Callable[[Changes], str]:
        return lambda found: text(found[phase]) if phase in found else MISSING

    def ms(us: float, change: Change) -> str:
        return number(us / 1000, 3) if change.own or change.baseline else MISSING

    return (
        Column(
            f"{phase} ms",
            "Time of the part in a step of that phase, without the profiler.",
            of(lambda change: ms(change.own, change)),
        ),
        Column(
            f"{phase} speed-up",
            "The baseline's time of the part / its own time.",
            of(lambda change: MISSING if change.speedup is None else f"{ratio(change.speedup)}x"),
        ),
        Column(
            f"{phase} saves ms",
            "The baseline's time minus the experiment's own; negative if it is slower. The parts add up to the saving "
            "of the whole step.",
            of(lambda change: ms(saved(change), change)),
        ),
    )


MOST_CATEGORIES = 6
"""Maximum number of category columns in a table, besides the device's waiting and the rest."""

SMALL = 0.01
"""A part below this share of every step has no separate column or line."""


def profile_part(findings: Findings) -> SummaryPart:
    """Return the tables and notes of all profiles, with unreadable profiles at the top, and profile.csv."""
    inside = findings.inside
    report, tables = inside.profiles, profile_views(findings)
    found = bool(report.profiled or report.left_out)
    notes = profile_notes(report, tables)
    return SummaryPart(
        tables=tables,
        sections=[section for section in notes if section.heading != DEFINITIONS],
        definitions=[section for section in notes if section.heading == DEFINITIONS],
        warnings=[Section("Profiles that can't be read", inside.problems)] if inside.problems else [],
        files={"profile.csv": profile_table(report)} if found else {},
    )


def profile_views(findings: Findings) -> list[View]:
    """Return the tables of each platform; tables of differences only if profiles are compared."""
    report = findings.inside.profiles
    tables: list[View] = []
    for platform in dict.fromkeys(each.platform for each in report.profiled):
        title = f"profile, {platform}"
        found = [
            Entry(_texts(findings, each), breakdown)
            for each, breakdown in by_phase([each for each in report.profiled if each.platform == platform])
        ]
        without: list[Entry[Breakdown]] = [
            Entry(_texts(findings, each, each.reason)) for each in report.left_out if each.platform == platform
        ]
        shown = shown_categories([entry.of for entry in found if entry.of])
        rest = [category for category in CATEGORIES if category not in shown]
        categories = [category_column(category, [category]) for category in shown]
        columns: list[Column[Breakdown]] = [LAUNCHES, *STEP, *categories, category_column(REST, rest)]
        tables.append(view("Where a step's time goes, ms (%): ", title, columns, [*found, *without]))
        tables.append(view("Steps, timed and traced: ", title, TIMED, [*found, *without]))
        tables.append(_changes(findings, platform, title))
    return tables


def by_phase(profiled: Sequence[ProfiledExperiment]) -> Iterator[tuple[ProfiledExperiment, Breakdown]]:
    """Yield the phases of `profiled` by model and workload, with the quantizations of a phase side by side."""
    for table in dict.fromkeys(each.table for each in profiled):
        for phase in PHASES:
            for each in profiled:
                if each.table == table and phase in each.phases:
                    yield each, each.phases[phase]


def _texts(findings: Findings, of: ProfiledExperiment, empty_because: str = "") -> dict[str, str]:
    names = {"model": of.model, "workload": of.workload, "quant": of.quant, "empty because": empty_because}
    return names | {"launches": findings.launches.get(of.place, "")}


def shown_categories(found: Sequence[Breakdown]) -> list[str]:
    """Return the categories with separate columns, in their order."""
    greatest = {category: max(breakdown.share(category) for breakdown in found) for category in CATEGORIES}
    candidates = [category for category in CATEGORIES if category != HOST_GAP and greatest[category] >= SMALL]
    most = sorted(candidates, key=lambda category: -greatest[category])[:MOST_CATEGORIES]
    return [category for category in CATEGORIES if category in most or category == HOST_GAP]


def _changes(findings: Findings, platform: str, title: str) -> View:
    """Return the table of changes: a line for each large enough part of either side, then the whole step."""
    report = findings.inside.profiles
    entries: list[Entry[Changes]] = []
    for own, baseline in ((own, baseline) for own, baseline in report.pairs if own.platform == platform):
        sides = own.phases, baseline.phases
        phases = [phase for phase in PHASES if all(phase in side for side in sides)]
        found = {phase: changes(sides[1][phase].scaled, sides[0][phase].scaled) for phase in phases}
        steps = {phase: sides[1][phase].step_us for phase in phases}
        entries += [Entry({**_texts(findings, own), "part": word}, by) for word, by in _lines_of(found, steps)]
    columns = [column for phase in PHASES for column in change_columns(phase)]
    if entries:
        refused = [(each, reason) for each, reason in report.uncompared if each.platform == platform]
        entries += [Entry(_texts(findings, each, reason)) for each, reason in refused]
    return view("Speed-up by category: ", title, (PART, *columns), entries)


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
        profiles=[_values_of_profile(each) for each in report.profiled],
        named_operators=_UNKNOWN_NAMES,
        columns=list(_defined(tables)),
    )
    links = tuple((f"Traces of {title_of(each, each.quant)}", each.traces) for each in report.profiled)
    return [replace(section, links=links) if section.heading == TRACES else section for section in found]


def _values_of_profile(profiled: ProfiledExperiment) -> dict[str, Any]:
    return {
        "name": title_of(profiled, profiled.quant),
        "phases": [
            {"name": phase, "flags": doubts(breakdown), "unknown": _unknown(breakdown)}
            for phase, breakdown in profiled.phases.items()
        ],
    }


def _unknown(breakdown: Breakdown) -> list[tuple[str, float]]:
    """Return operators without a rule, with their share of the step in percent; empty unless they need a flag."""
    if breakdown.traced_share(OTHER) <= UNKNOWN:
        return []
    return [(operator_word(name), 100 * share) for name, share in breakdown.unknown]


def _defined(tables: Sequence[View]) -> Iterator[Column[object]]:
    """Yield the shown columns of `tables` that have a definition, each once.

    Columns of several phases share their definition.
    """
    defined: set[str] = set()
    for column in (column for table in told(tables) for column in table.columns):
        if column.definition and not {column.header, column.definition} & defined:
            defined |= {column.header, column.definition}
            yield column
