"""The tables of profile mode and their notes: time of a step by category, and changes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rollout_bench.analysis.stats.intervals import mean
from rollout_bench.analysis.timed.experiments import ResultSet, ValidExperiment
from rollout_bench.contracts.axes import title_of
from rollout_bench.contracts.mode import Mode
from rollout_bench.contracts.phases import Phase
from rollout_bench.core.numbers import MISSING, number, plain_percent, ratio
from rollout_bench.modes.profile import MODE
from rollout_bench.modes.profile.breakdown import (
    HOST_GAP,
    LINEAR,
    OTHER,
    PHASES,
    QUANTIZE,
    Breakdown,
    Change,
)
from rollout_bench.modes.profile.findings import (
    DEVICE_BOUND,
    HOST_BOUND,
    TRACE_OFF,
    UNKNOWN,
    ProfileReport,
    agreement,
    bound,
    doubts,
    profile_report,
    profile_table,
)
from rollout_bench.modes.profile.profiles import ProfiledExperiment, read_profiled
from rollout_bench.modes.profile.traces.categories import CATEGORIES
from rollout_bench.report.parts import Findings, SummaryPart
from rollout_bench.report.prose import Section, definitions, sections
from rollout_bench.report.views import LAUNCHES, Column, Entry, View, view

CATEGORY_WORDS = {"kv_cache": "KV cache", "memory_copy": "memory copy", HOST_GAP: "device waits"}
"""Display names of categories that differ from their keys."""

REST = "rest"
"""Categories and parts that are too small for a separate column or line."""

_HEAD, _TAIL = 27, 14
"""Characters that a note keeps of a longer name of an operator, at its beginning and at its end."""


def category_word(category: str) -> str:
    """Return the display name of a category."""
    return CATEGORY_WORDS.get(category, category)


def operator_word(name: str) -> str:
    """Return the name of an operator or kernel, shortened in the middle if long, as names of templates are."""
    text = " ".join(name.removeprefix("void ").split())
    return text if len(text) <= _HEAD + 3 + _TAIL else f"{text[:_HEAD]}...{text[-_TAIL:]}"


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
        "following columns add up to it: milliseconds of a step without the profiler, and in brackets the percentage "
        "of the step. On a CPU, the profiler slows every operator, so each operator keeps its share of the traced "
        "step. On a device, operators keep their traced duration, and the device waits for the rest of the step.",
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


def category_us(found: Breakdown, categories: Sequence[str]) -> float:
    """Return the microseconds of `categories` together in a step without the profiler."""
    return sum(found.scaled.get(category, 0.0) for category in categories)


def category_column(word: str, categories: Sequence[str]) -> Column[Breakdown]:
    """Return the column of the time in `categories` together."""

    def cell(found: Breakdown) -> str:
        us = category_us(found, categories)
        return MISSING if us <= 0 else f"{number(us / 1000, 3)} ({100 * us / found.step_us:.0f})"

    return Column(category_word(word), _CATEGORY.get(word, ""), cell)


def _mean_ms(seconds: Sequence[float]) -> str:
    return number(1000 * mean(seconds) if seconds else None)


def _percent(share: float | None, digits: int = 3) -> str:
    return number(None if share is None else 100 * share, digits)


TIMED: tuple[Column[Breakdown], ...] = (
    PHASE,
    Column("traced", "Number of steps in the traces of all ranks.", lambda found: f"{found.steps:,d}"),
    Column(
        "tokens",
        "Tokens computed in a step; mean over the timed steps.",
        lambda found: MISSING if found.tokens is None else f"{found.tokens:,.0f}",
    ),
    Column(
        "step ms",
        "Mean time of a step without the profiler.",
        lambda found: _mean_ms(found.unprofiled_s),
    ),
    Column("profiled ms", "Mean time of a step with the profiler.", lambda found: _mean_ms(found.profiled_s)),
    Column(
        "profiler overhead",
        "Profiled ms / step ms: the slowdown by the profiler.",
        lambda found: MISSING if found.overhead is None else f"{ratio(found.overhead)}x",
    ),
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
    return 0.0 if abs(change.saved_us) < _NO_DIFFERENCE * max(change.baseline, change.own) else change.saved_us


def change_columns(phase: Phase) -> tuple[Column[Changes], ...]:
    """Return the columns of own time, speed-up and difference in one phase."""

    def of(text: Callable[[Change], str]) -> Callable[[Changes], str]:
        return lambda changes: text(changes[phase]) if phase in changes else MISSING

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


@dataclass(frozen=True)
class ProfiledExperiments:
    """All profiles, and messages about unreadable ones."""

    report: ProfileReport = field(default_factory=lambda: profile_report(()))
    problems: tuple[str, ...] = ()


def analyse(results: Path, inside: Sequence[ValidExperiment], collection: ResultSet) -> ProfiledExperiments:
    """Read the profiles of the experiments `inside`, which belong to `collection`."""
    profiled, problems = read_profiled(results, inside, collection)
    return ProfiledExperiments(profile_report(profiled), tuple(problems))


def found_in(findings: Findings) -> ProfiledExperiments:
    """Return the profiles in `findings`."""
    return findings.results_of_mode(MODE.name, ProfiledExperiments())


def part_of(findings: Findings, mode: Mode) -> SummaryPart:
    """Return the tables and notes of all profiles, with unreadable profiles at the top, and profile.csv."""
    results = found_in(findings)
    report, tables = results.report, profile_views(findings)
    return SummaryPart(
        tables=tables,
        sections=profile_notes(report) if report.profiled else [],
        definitions=definitions("Definitions, profile", tables),
        warnings=[Section("Profiles that can't be read", results.problems)] if results.problems else [],
        files={"profile.csv": profile_table(report)} if report.profiled or report.left_out else {},
    )


def profile_views(findings: Findings) -> list[View]:
    """Return the tables of each platform; tables of differences only if profiles are compared."""
    report = found_in(findings).report
    tables: list[View] = []
    beside = list(dict.fromkeys(each.table for each in report.profiled))
    steps = [(each, breakdown) for each in report.profiled for breakdown in each.phases.values()]
    # the quantizations of a phase side by side
    steps.sort(key=lambda pair: (beside.index(pair[0].table), PHASES.index(pair[1].phase)))
    for platform in dict.fromkeys(each.platform for each in report.profiled):
        title = f"profile, {platform}"
        entries = [Entry(_texts(findings, each), step) for each, step in steps if each.platform == platform]
        entries += [Entry(_texts(findings, each, each.reason)) for each in report.left_out if each.platform == platform]
        shown = shown_categories([entry.of for entry in entries if entry.of])
        rest = [category for category in CATEGORIES if category not in shown]
        categories = [category_column(category, [category]) for category in shown]
        columns: list[Column[Breakdown]] = [LAUNCHES, *STEP, *categories, category_column(REST, rest)]
        tables.append(view("Where a step's time goes, ms (%): ", title, columns, entries))
        tables.append(view("Steps, timed and traced: ", title, TIMED, entries))
        tables.append(_changes(findings, platform, title))
    return tables


def _texts(findings: Findings, of: ProfiledExperiment, empty_because: str = "") -> dict[str, str]:
    names = {"model": of.model, "workload": of.workload, "quant": of.quant, "empty because": empty_because}
    return names | {"launches": findings.launches.get(of.place, "")}


def shown_categories(breakdowns: Sequence[Breakdown]) -> list[str]:
    """Return the categories with separate columns, in their order."""
    greatest = {category: max(breakdown.share(category) for breakdown in breakdowns) for category in CATEGORIES}
    candidates = [category for category in CATEGORIES if category != HOST_GAP and greatest[category] >= SMALL]
    most = sorted(candidates, key=lambda category: -greatest[category])[:MOST_CATEGORIES]
    return [category for category in CATEGORIES if category in most or category == HOST_GAP]


def _changes(findings: Findings, platform: str, title: str) -> View:
    """Return the table of changes: a line for each large enough part of either side, then the whole step."""
    report = found_in(findings).report
    entries: list[Entry[Changes]] = []
    for own, baseline in ((own, baseline) for own, baseline in report.pairs if own.platform == platform):
        steps = {phase: (own.phases[phase], baseline.phases[phase]) for phase in own.phases if phase in baseline.phases}
        entries += [Entry({**_texts(findings, own), "part": word}, by) for word, by in _lines_of(steps)]
    columns = [column for phase in PHASES for column in change_columns(phase)]
    if entries:
        refused = [(each, reason) for each, reason in report.uncompared if each.platform == platform]
        entries += [Entry(_texts(findings, each, reason)) for each, reason in refused]
    return view("Speed-up by category: ", title, (PART, *columns), entries)


def _lines_of(steps: Mapping[Phase, tuple[Breakdown, Breakdown]]) -> Iterator[tuple[str, Changes]]:
    """Yield each part by its name, for `steps` of an experiment and of its baseline."""
    measured = [
        category for category in CATEGORIES if any(category in side.scaled for both in steps.values() for side in both)
    ]
    effect = [category for category in (LINEAR, QUANTIZE) if category in measured]
    large = [
        category
        for category in measured
        if any(
            max(category_us(own, [category]), category_us(baseline, [category])) >= SMALL * baseline.step_us
            for own, baseline in steps.values()
        )
    ]
    parts = {category: [category] for category in effect}
    if QUANTIZE in measured:
        parts["= linear + quantize"] = effect
    parts |= {category_word(category): [category] for category in large if category not in effect}
    parts[REST] = [category for category in measured if category not in (*effect, *large)]
    parts["whole step"] = measured
    for part, categories in parts.items():
        if categories:
            yield (
                part,
                {
                    phase: Change(part, category_us(baseline, categories), category_us(own, categories))
                    for phase, (own, baseline) in steps.items()
                },
            )


_UNKNOWN_NAMES = 5
"""Maximum number of operators without a rule that a note names."""


def profile_notes(report: ProfileReport) -> list[Section]:
    """Return the non-empty sections below the tables of `profile_views`."""
    profiles = [_values_of_profile(each) for each in report.profiled]
    links = tuple((f"Traces of {title_of(each, each.quant)}", each.traces) for each in report.profiled)
    on_npu = any(each.platform == "ascend" for each in report.profiled)
    texts = sections(f"{MODE.name}/report", profiles=profiles, named_operators=_UNKNOWN_NAMES, on_npu=on_npu)
    return [replace(section, links=links) if section.kind == "links" else section for section in texts]


def _values_of_profile(profiled: ProfiledExperiment) -> dict[str, Any]:
    def operators(step: Breakdown) -> list[tuple[str, float]]:
        """Return operators without a rule, with their share of the step in percent; empty unless they need a flag."""
        shares = step.unknown if step.traced_share(OTHER) > UNKNOWN else ()
        return [(operator_word(name), 100 * share) for name, share in shares]

    return {
        "name": title_of(profiled, profiled.quant),
        "phases": [
            {"name": phase, "flags": doubts(step), "unknown": operators(step)}
            for phase, step in profiled.phases.items()
        ],
    }
