"""The tables of profile mode and their foot: where a step's time goes, changes, predicted against measured."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence

from rollout_bench.analysis.inside.breakdown import (
    Breakdown,
    Change,
    Operator,
    changes,
    linear_with_quantize,
    operators,
    other_shapes,
    place,
    together,
    unknown,
)
from rollout_bench.analysis.inside.profiles import (
    CATEGORIES,
    HOST_GAP,
    LINEAR,
    OTHER,
    PHASES,
    QUANTIZE,
    LeftOut,
    Part,
    ProfiledExperiment,
)
from rollout_bench.analysis.inside.reconciliation import (
    DEVICE_BOUND,
    HOST_BOUND,
    TRACE_OFF,
    UNKNOWN,
    Prediction,
    ProfileReport,
    Reconciliation,
    agreement,
    bound,
    doubts,
)
from rollout_bench.analysis.stats.intervals import mean
from rollout_bench.contracts.inside import Phase
from rollout_bench.core.numbers import MISSING, number, percent, plain_percent, ratio, sentence, several
from rollout_bench.report.headings import Column, Line, View, interval_text, view
from rollout_bench.report.notes import Section

CATEGORY_WORDS = {"kv_cache": "KV cache", "memory_copy": "memory copy", HOST_GAP: "device waits"}
"""Of those that are not called as they are."""

REST = "rest"
"""What is too small for a column or a line of its own."""

_NAME, _SHAPES = 44, 28
"""Characters of an operator's name and of its shapes that a table shows."""


def category_word(category: str) -> str:
    """A category."""
    return CATEGORY_WORDS.get(category, category)


def part_word(part: Part) -> str:
    """A category, and of a linear layer its role."""
    category, role = part
    return f"{category_word(category)} {role}" if role else category_word(category)


def role_word(part: Part) -> str:
    """The same in a list below all linear layers."""
    return f"- {part[1]}" if part[0] == LINEAR and part[1] else part_word(part)


def operator_word(name: str) -> str:
    """The name of an operator or kernel, its middle left out where it is long, as names of templates are."""
    return cut(" ".join(name.removeprefix("void ").split()), _NAME)


def shapes_word(shapes: str) -> str:
    """`32x768, 768x4096` of JSON such as `[[32, 768], [768, 4096], []]`: without scalars, and what is too long."""
    try:
        found = json.loads(shapes) if shapes else []
    except ValueError:
        return cut(shapes, _SHAPES)
    if not isinstance(found, list):
        return cut(shapes, _SHAPES)
    flat = ["x".join(map(str, s)) for s in found if isinstance(s, list) and s and not isinstance(s[0], list)]
    while len(flat) > 1 and len(", ".join(flat)) > _SHAPES:
        flat = [*flat[:-2], "..."] if flat[-1] == "..." else [*flat[:-1], "..."]
    return cut(", ".join(flat), _SHAPES)


def cut(text: str, characters: int) -> str:
    """`text`, its middle left out where it has more than `characters`."""
    if len(text) <= characters:
        return text
    head = (characters - 3) * 2 // 3
    return f"{text[:head]}...{text[len(text) - (characters - 3 - head) :]}"


PHASE = Column(
    "phase",
    "What the engine's steps computed: prefill prompts, decode one token of each sequence, mixed both.",
    lambda line: line["phase"],
    words=True,
)


_NO_DIFFERENCE = 1e-6
"""Of a part: less is rounding."""


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
        "A step of the engine without the profiler, mean over those that the profile's launch timed. The columns after "
        "it add up to it.",
        _number("step_us", 4, 1e-3),
    ),
)
"""The columns of categories follow."""

_CATEGORY = {
    "linear": "Matrix multiplications of linear layers.",
    "quantize": "Quantizing activations and dequantizing, where that is an operator of its own.",
    HOST_GAP: "No operator runs on the device. On a CPU: what the engine's own process does between operators.",
    "other": "Operators that no rule knows; the notes list them.",
    REST: "All categories together that are too small for a column.",
}

SHARES = (
    "Columns of categories: milliseconds of a step without the profiler, in brackets percent of it. On a CPU, where "
    "the profiler slows every operator, each keeps its share of the traced step; on a device operators keep their "
    "traced duration, and the device waits for what is left of the step."
)
"""How those columns are computed."""


def category_column(category: str) -> Column:
    """The time in one category, or in the rest."""

    def cell(line: Line) -> str:
        us = line["parts"][category]
        if us <= 0:
            return MISSING
        return f"{number(us / 1000, 3)} ({100 * us / line['step_us']:.0f})"

    return Column(category_word(category), _CATEGORY.get(category, ""), cell)


TIMED = (
    PHASE,
    Column("traced", "Steps in the traces, of all ranks.", lambda line: f"{line['steps']:,d}"),
    Column("tokens", "Tokens computed in a step, mean over the timed ones.", _tokens),
    Column("step ms", "Mean time of a step without the profiler.", _number("unprofiled_s", 4, 1000)),
    Column("profiled ms", "Mean time of a step with the profiler.", _number("profiled_s", 4, 1000)),
    Column(
        "profiler overhead",
        "Profiled ms / step ms: how much the profiler slows steps down.",
        lambda line: MISSING if line["overhead"] is None else f"{ratio(line['overhead'])}x",
    ),
    Column(
        "in trace %",
        "Duration of a step in the trace, from its begin to the begin of the next, over profiled ms. Off by more than "
        f"{plain_percent(TRACE_OFF)}: flag trace_time.",
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
        f"Share of the traced step of operators that no rule knows. Above {plain_percent(UNKNOWN)}: flag other.",
        _number("other", 2, 100),
    ),
    Column(
        "flags",
        "trace_time and other: see their columns. untimed: no step without the profiler was timed. unsteady: steps "
        "scatter widely.",
        _text("flags"),
        words=True,
    ),
)

OPERATORS = (
    PHASE,
    Column("operator", "Name of the operator on a CPU, of the kernel on a device.", _text("operator"), words=True),
    Column("part", "Its category, and the role of a linear layer.", _text("part"), words=True),
    Column("shapes", "Shapes of its inputs, as far as they are traced.", _text("shapes"), words=True),
    Column("calls", "Calls in a step, mean.", _number("calls", 3)),
    Column(
        "us/step",
        "Microseconds in a traced step, mean, without operators that it calls.",
        _number("us", 3),
    ),
    Column("share %", "Of the traced step.", _number("share", 2, 100)),
)

PART = Column(
    "part",
    "Category of operators; below linear its roles. Linear + quantize is what the quantization changes in all. Parts "
    "that take less than 1 % of a step are in the rest.",
    lambda line: line["part"],
    words=True,
)


def saved(change: Change) -> float:
    """What a part saves, with a difference that is none but for rounding as 0."""
    return 0.0 if abs(change.saved) < _NO_DIFFERENCE * max(change.baseline, change.own) else change.saved


def change_columns(phase: Phase) -> tuple[Column, Column, Column]:
    """Its own time, the speed-up and the difference in one phase."""

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
        Column(f"{phase} ms", "Its time in a step of that phase without the profiler.", own),
        Column(f"{phase} speed-up", "The baseline's time of the part / its own.", faster),
        Column(
            f"{phase} saves ms",
            "The baseline's time less its own, negative where it costs. Add up to the whole step's.",
            saves,
        ),
    )


def _pair(cell: Callable[[Reconciliation], str]) -> Callable[[Line], str]:
    return lambda line: cell(line["pair"])


def _with_ends(value: float, low: float | None, high: float | None) -> str:
    ends = "" if low is None or high is None else f" [{ratio(low)}, {ratio(high)}]"
    return f"{ratio(value)}x{ends}"


def _predicted(pair: Reconciliation) -> str:
    found = pair.prediction
    return MISSING if found is None else _with_ends(found.speedup, found.low, found.high)


def _measured(pair: Reconciliation) -> str:
    found = pair.own.comparison
    return MISSING if found is None or found.speedup is None else f"{ratio(found.speedup)}x{interval_text(found)}"


def _verdict_cell(pair: Reconciliation) -> str:
    if pair.verdict == "unknown":
        return MISSING
    return "agree" if pair.verdict == "agree" else "APART"


RECONCILED = (
    Column(
        "traces alone",
        "The speed-up of a pass from the traced durations of steps, profiler overhead included: not to be relied on.",
        _pair(lambda pair: MISSING if pair.prediction is None else f"{ratio(pair.prediction.traces_alone)}x"),
    ),
    Column(
        "predicted",
        "The speed-up of a pass that the parts of its steps add up to (Amdahl's law), each at its time without the "
        "profiler, times the steps of a pass; in brackets the interval from the scatter of the timed steps, "
        "which knows of one launch; none where a phase has a single one.",
        _pair(_predicted),
        words=True,
    ),
    Column(
        "measured",
        "The speed-up in output tok/s end to end, as in the table of throughput.",
        _pair(_measured),
        words=True,
    ),
    Column(
        "predicted / measured",
        "Their ratio, in brackets its interval from both (Zou and Donner, 2008), or from the measured one alone.",
        _pair(lambda pair: MISSING if pair.ratio is None else _with_ends(pair.ratio, pair.low, pair.high)),
        words=True,
    ),
    Column(
        "verdict",
        "APART: that interval does not hold 1, and they differ by more than the relevant difference; the notes say "
        "why, if anything tells. A wide interval agrees with much.",
        _pair(_verdict_cell),
        words=True,
    ),
)


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
        tables += [*_changes(title, report, pairs, uncompared), *_reconciled_rows(title, pairs, uncompared)]
        tables += _operators(title, report, own, without)
    return tables


def by_phase(
    report: ProfileReport, profiled: Sequence[ProfiledExperiment]
) -> Iterator[tuple[ProfiledExperiment, Breakdown]]:
    """The phases of `profiled`, those of one model and workload together, quants of a phase side by side."""
    for table in dict.fromkeys(each.table for each in profiled):
        for phase in PHASES:
            for each in profiled:
                if each.table == table and phase in report.of(each):
                    yield each, report.of(each)[phase]


def _names(profiled: ProfiledExperiment | LeftOut, empty_because: str = "") -> Line:
    names = {"model": profiled.model, "workload": profiled.workload, "quant": profiled.quant}
    return names | {"empty_because": empty_because}


def _steps(
    title: str, report: ProfileReport, profiled: Sequence[ProfiledExperiment], without: Sequence[Line]
) -> Iterator[View]:
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


def _reconciled_rows(title: str, pairs: Sequence[Reconciliation], without: Sequence[Line]) -> Iterator[View]:
    lines = [_names(pair.own, pair.reason if pair.unmeasured else "") | {"pair": pair} for pair in pairs]
    if lines:
        yield view("Predicted against measured: ", title, RECONCILED, lines, without)


def _operators(
    title: str, report: ProfileReport, profiled: Sequence[ProfiledExperiment], without: Sequence[Line]
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


OPEN = (
    "Open a trace, a file that ends in .json.gz, in Perfetto's viewer in a browser (ui.perfetto.dev, 'Open trace "
    "file'); it stays on this machine. docs/how-to/profile.md says what to look for."
)

_UNKNOWN_NAMES = 5
"""Operators that no rule knows which a note names."""

_CAUSES = 5
"""Categories that a note on what is saved names."""

_TELL = 0.02
"""By how much the traces alone may be off the prediction before a note says why."""


def profile_notes(report: ProfileReport, tables: Sequence[View]) -> list[Section]:
    """The sections below the tables of `profile_views`, without those that have nothing to say."""
    if not report.profiled:
        return []
    sections = [
        Section("Predicted and measured", tuple(_reconciled_notes(report))),
        Section("Doubts about profiles", tuple(_doubts(report))),
        Section("Traces", (OPEN,), tuple((f"Traces of {_name(each)}", each.traces) for each in report.profiled)),
        Section("Definitions, profile", tuple(_definitions(tables))),
    ]
    return [section for section in sections if section.items]


def _name(profiled: ProfiledExperiment | LeftOut) -> str:
    return f"{profiled.model} {profiled.quant} {profiled.workload}"


def _reconciled_notes(report: ProfileReport) -> Iterator[str]:
    for pair in report.reconciliations:
        name = f"{_name(pair.own)} over {pair.baseline.quant}"
        yield f"{name}: {_verdict_sentence(pair)}"
        if pair.prediction is not None:
            yield f"{name}: {_net(pair.prediction)}"
            yield from _traces_alone(report, pair, pair.prediction)
            yield from _stand_ins(name, pair)
    for own, reason in report.uncompared:
        yield f"{_name(own)}: predicted and measured are not compared: {sentence(reason)}"


def _verdict_sentence(pair: Reconciliation) -> str:
    if pair.verdict == "unknown" or pair.ratio is None:
        return f"predicted and measured are not compared: {sentence(pair.reason)}"
    apart = "the same" if round(pair.ratio, 3) == 1 else f"{percent(max(pair.ratio, 1 / pair.ratio) - 1)} apart"
    far = "" if pair.low is None or pair.high is None else f" (ratio {ratio(pair.low)} to {ratio(pair.high)})"
    if pair.verdict == "agree":
        return f"what its steps add up to agrees with what was measured, {apart}{far}."
    numbered = [f"({place}) {sentence(reason)}" for place, reason in enumerate(pair.reasons, 1)]
    why = f"Likely: {' '.join(numbered)}" if numbered else "Nothing in the profiles says why."
    return f"what its steps add up to is not what was measured, {apart}{far}. {why}"


def _net(prediction: Prediction) -> str:
    """What the pass saves and where, the largest parts first."""
    by_category: dict[str, Change] = {}
    for change in prediction.changes:
        sums = by_category.get(change.part[0], Change(change.part, 0.0, 0.0))
        by_category[change.part[0]] = Change(change.part, sums.baseline + change.baseline, sums.own + change.own)
    total_s = prediction.baseline_s - prediction.own_s
    by_saved = {category: saved(change) for category, change in by_category.items() if saved(change)}
    ordered = sorted(by_saved.items(), key=lambda item: -abs(item[1]))
    told = [f"{category_word(category)} {_signed(seconds)}" for category, seconds in ordered[:_CAUSES]]
    rest = sum(seconds for _, seconds in ordered[_CAUSES:])
    told += [f"all else {_signed(rest)}"] if rest else []
    kernels = [by_saved.get(category, 0.0) for category in (LINEAR, QUANTIZE) if category in by_category]
    net = f" Linear and quantize together: {_signed(sum(kernels))}." if len(kernels) == 2 else ""
    return (
        f"of the {number(prediction.baseline_s, 3)} s that the baseline's steps of a pass take it saves "
        f"{_signed(total_s)} s: {', '.join(told) or 'nothing anywhere'}.{net}"
    )


def _signed(seconds: float) -> str:
    return ("-" if seconds < 0 else "+" if seconds > 0 else "") + number(abs(seconds), 3)


def _traces_alone(report: ProfileReport, pair: Reconciliation, prediction: Prediction) -> Iterator[str]:
    off = prediction.traces_alone / prediction.speedup
    if max(off, 1 / off) < 1 + _TELL:
        return
    told = [
        f"{phase} steps {ratio(own)}x as long for {pair.own.quant}, {ratio(other)}x for {pair.baseline.quant}"
        for phase in report.of(pair.own)
        for own, other in ((_overhead(report, pair.own, phase), _overhead(report, pair.baseline, phase)),)
        if own is not None and other is not None
    ]
    if told:
        yield (
            f"{_name(pair.own)} over {pair.baseline.quant}: the traces alone would say "
            f"{ratio(prediction.traces_alone)}x. The profiler makes {'; '.join(told)}."
        )


def _overhead(report: ProfileReport, profiled: ProfiledExperiment, phase: Phase) -> float | None:
    breakdown = report.of(profiled).get(phase)
    return breakdown.sample.overhead if breakdown is not None and breakdown.sample is not None else None


def _stand_ins(name: str, pair: Reconciliation) -> Iterator[str]:
    assert pair.prediction is not None
    for phase, stand_in in pair.prediction.taken_for.items():
        yield f"{name}: {phase} steps are not profiled, {stand_in} steps are taken for them."
    shapes = other_shapes(pair.own, pair.baseline)
    if shapes:
        yield f"{name}: linear layers of other shapes ({', '.join(shapes)}), whose speed-up is not of the same work."


def _doubts(report: ProfileReport) -> Iterator[str]:
    for each in report.profiled:
        for phase, breakdown in report.of(each).items():
            for doubt in doubts(breakdown):
                yield f"{_name(each)}, {phase}: {doubt.code}: {sentence(doubt.sentence)}"
            if breakdown.traced_share("other") > UNKNOWN:
                names = unknown(each, breakdown)
                told = ", ".join(
                    f"{operator_word(operator.name)} ({number(100 * operator.share, 2)} %)"
                    for operator in names[:_UNKNOWN_NAMES]
                )
                more = len(names) - _UNKNOWN_NAMES
                yield f"{_name(each)}, {phase}: operators that no rule knows: {told}" + (
                    f" and {several(more, 'other')}." if more > 0 else "."
                )
        if each.record.truncated:
            yield f"{_name(each)}: {sentence(each.record.truncated)}"
        for warning in each.warnings:
            yield f"{_name(each)}: {sentence(warning)}"


def _definitions(tables: Sequence[View]) -> Iterator[str]:
    """Of the columns of `tables`, each once; columns of several phases share theirs."""
    yield SHARES
    told: set[str] = set()
    for column in (column for table in tables for column in table.columns):
        if column.definition and not {column.header, column.definition} & told:
            told |= {column.header, column.definition}
            yield f"{column.header}: {column.definition}"
