"""Figures of profiles: steps, roles, and the time line of a decode step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from rollout_bench.analysis.inside.breakdown import (
    Breakdown,
    Change,
    TimeLine,
    changes,
    linear_with_quantize,
    place,
    time_line,
)
from rollout_bench.analysis.inside.profiles import (
    CATEGORIES,
    HOST_GAP,
    OTHER,
    PHASES,
    QUANTIZE,
    Part,
    ProfiledExperiment,
)
from rollout_bench.analysis.inside.reconciliation import ProfileReport, Reconciliation
from rollout_bench.contracts.inside import Phase
from rollout_bench.core.numbers import number
from rollout_bench.report.figures.style import (
    HALO,
    INK,
    MAX_LINES,
    MIN_HEIGHT,
    QUIET,
    TOP,
    WIDTH,
    QuantStyle,
    label_styles,
    legend,
    message_figure,
    new_figure,
    shorten,
    thousands,
    title_panel,
)
from rollout_bench.report.tables.profile_tables import category_word, part_word

COLOURS = {
    "linear": "#0072B2",
    "quantize": "#D55E00",
    "attention": "#E69F00",
    "kv_cache": "#F0C987",
    "norm": "#009E73",
    "activation": "#CC79A7",
    "rotary": "#8ED3BC",
    "embedding": "#7A5195",
    "sampling": "#56B4E9",
    "communication": "#000000",
    "memory_copy": "#8C6D31",
    OTHER: "#888888",
    HOST_GAP: "#E4E4E4",
}
"""Okabe and Ito's palette (2008) and tints of it: large categories differ most."""

_IN_A_LINE = 5
"""Categories of the legend side by side."""

Table = tuple[str, str, str]
"""Platform, model and workload: what one heading is above."""


@dataclass(frozen=True)
class Lines:
    """Where each profile goes, by its place, and each heading; one line is one unit high."""

    heights: dict[str, float]
    labels: dict[str, str]
    headings: dict[str, float]
    left_out: str

    @property
    def height(self) -> float:
        """From above the first heading to below the last line."""
        return TOP - min(self.heights.values()) + 0.6

    @property
    def text_size(self) -> float:
        """Points of the text beside a line."""
        return min(14.0, 310 / max(self.height, MIN_HEIGHT))


def lines_of(profiled: Sequence[ProfiledExperiment]) -> Lines:
    """Lay out `profiled` (at least one), those of one model and workload together."""
    tables = list(dict.fromkeys(each.table for each in profiled))
    ordered = [each for table in tables for each in profiled if each.table == table]
    heights: dict[str, float] = {}
    headings: dict[str, float] = {}
    y = 0.0
    for each in ordered[:MAX_LINES]:
        title = table_title(each.table, tables)
        if title not in headings:
            y -= 0.15
            headings[title] = y
            y -= 0.95
        heights[each.place] = y
        y -= 1
    left = len(ordered) - MAX_LINES
    left_out = f"Not shown for want of room: {left} of {len(ordered)} profiles; select fewer." if left > 0 else ""
    return Lines(heights, {each.place: each.quant for each in ordered[:MAX_LINES]}, headings, left_out)


def table_title(table: Table, tables: Sequence[Table]) -> str:
    """Model and workload, and the platform where there are several."""
    platform, model, workload = table
    return ", ".join([model, workload, *([platform] if len({other[0] for other in tables}) > 1 else [])])


def draw_lines(axes: Axes, lines: Lines, first: bool, across: int) -> None:
    """Draw ticks for the lines and headings above them, in one of so many panels; names stand left of the first."""
    spare = max(0.0, MIN_HEIGHT - lines.height) / 2
    axes.set_ylim(TOP - lines.height - spare, TOP + spare)
    size = lines.text_size
    labels = [shorten(lines.labels[place], 0.8 * WIDTH / (1 + across), size) for place in lines.heights]
    axes.set_yticks(list(lines.heights.values()), labels)
    axes.tick_params(axis="y", length=0, labelsize=size, labelleft=first)
    axes.grid(axis="y", visible=False)
    for title, y in lines.headings.items() if first else ():
        name = axes.annotate(
            shorten(title, 0.7 * WIDTH / across, size, "bold"), (0, y), xycoords=("axes fraction", "data"),
            xytext=(4, 0), textcoords="offset points", va="center", fontsize=size, fontweight="bold", color=INK,
            bbox=HALO,
        )  # fmt: skip
        name.set_in_layout(False)


def category_legend(figure: Figure, shown: Iterable[str]) -> None:
    """Draw the key of the categories in `shown`, in two lines beside the title."""
    there = set(shown)
    handles = [
        Patch(facecolor=COLOURS[category], label=category_word(category))
        for category in CATEGORIES
        if category in there
    ]
    columns = max(_IN_A_LINE, -(-len(handles) // 2))
    narrow: dict[str, Any] = {"fontsize": 11, "handlelength": 1, "handletextpad": 0.4, "columnspacing": 0.8}
    legend = figure.legend(handles=handles, loc="upper right", ncols=columns, frameon=False, **narrow)
    legend.set_in_layout(False)


def ink_on(category: str) -> str:
    """Return a colour for text on the category's own that can be read."""
    red, green, blue = (int(COLOURS[category][place : place + 2], 16) for place in (1, 3, 5))
    return "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 140 else INK


STEPS_TITLE = "Where a step's time goes"

WIDE = 0.07
"""Share of a panel's width from which on a segment has its share written in it."""


def steps_figure(report: ProfileReport, where: str, alarm: str) -> Figure:
    """Draw the milliseconds of each category in a step without the profiler."""
    shown = [each for each in report.profiled if report.of(each)]
    if not shown:
        return message_figure(STEPS_TITLE, "There is no valid profile yet.", alarm=alarm)
    lines = lines_of(shown)
    phases = [phase for phase in PHASES if any(phase in report.of(each) for each in shown)]
    notes = [
        "Bar: a step without the profiler, its categories from the trace; percent of the step inside, its milliseconds "
        "beside it.",
        lines.left_out,
        where,
    ]
    figure = new_figure(STEPS_TITLE, notes, alarm)
    grid = figure.subplots(1, len(phases), sharey=True, squeeze=False)[0]
    for column, (axes, phase) in enumerate(zip(grid, phases, strict=True)):
        draw_lines(axes, lines, column == 0, len(phases))
        found = {each.place: report.of(each)[phase] for each in shown if phase in report.of(each)}
        longest = max((breakdown.step_us for breakdown in found.values()), default=0.0) / 1000
        axes.set_xlim(0, 1.2 * longest or 1)
        for name, breakdown in found.items():
            if name in lines.heights:
                _draw_bar(axes, breakdown, lines.heights[name], lines.text_size)
        axes.set_title(phase, loc="left")
        axes.set_xlabel("ms per step")
        axes.xaxis.set_major_locator(MaxNLocator(max(4, 10 // len(phases))))
        axes.xaxis.set_major_formatter(thousands())
    category_legend(figure, _categories(report))
    return figure


def _categories(report: ProfileReport) -> set[str]:
    return {
        category
        for phases in report.phases.values()
        for breakdown in phases.values()
        for category in CATEGORIES
        if breakdown.of_category(category) > 0
    }


def _draw_bar(axes: Axes, breakdown: Breakdown, y: float, size: float) -> None:
    begin, whole = 0.0, axes.get_xlim()[1]
    for category in CATEGORIES:
        length = breakdown.of_category(category) / 1000
        if length <= 0:
            continue
        axes.barh(y, length, left=begin, height=0.78, color=COLOURS[category], edgecolor="white", linewidth=0.6)
        if length >= WIDE * whole:
            axes.text(
                begin + length / 2, y, f"{100 * breakdown.share(category):.0f}", ha="center", va="center",
                fontsize=0.85 * size, color=ink_on(category),
            )  # fmt: skip
        begin += length
    axes.annotate(number(begin), (begin, y), (6, 0), textcoords="offset points", va="center", fontsize=size, color=INK)


ROLES_TITLE = "Speed-up of each part of a step"

MAX_PANELS = 6
"""Side by side that fit on a slide: models and workloads, each with its phases."""

SMALL = 0.01
"""Share of a step below which a part is not drawn: its speed-up matters to nobody."""

FURTHEST = 10.0
"""Speed-ups beyond this, either way, are drawn at the edge."""

TICKS = (0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 1, 1.1, 1.25, 1.5, 2, 3, 5, 10)

NET: Part = ("linear", "+ quantize")
WHOLE: Part = ("whole step", "")


def roles_figure(report: ProfileReport, where: str, alarm: str) -> Figure:
    """Draw the speed-up of each part over the baseline: a panel for each model and workload and phase."""
    pairs = [pair for pair in report.reconciliations if _phases(report, pair)]
    if not pairs:
        text = "Nothing is compared: it takes profiles of the baseline and of another quant."
        return message_figure(ROLES_TITLE, text if report.profiled else "There is no valid profile yet.", alarm=alarm)
    tables = list(dict.fromkeys(pair.own.table for pair in pairs))
    phases = [phase for phase in PHASES if any(phase in _phases(report, pair) for pair in pairs)]
    shown = tables[: max(1, MAX_PANELS // len(phases))]
    left = len(tables) - len(shown)
    columns = [(table, phase) for table in shown for phase in phases]
    found = [_found(report, [pair for pair in pairs if pair.own.table == table], phase) for table, phase in columns]
    baselines = dict.fromkeys(pair.baseline.quant for pair in pairs)
    notes = [
        f"Times without the profiler, {', '.join(baselines)}'s over its own; above 1 is faster. The larger the marker, "
        "the more of the baseline's step the part takes. Quantizing is new, so it counts with the linear layers it "
        "serves: linear + quantize.",
        f"Not shown for want of room: {left} of {len(tables)} models and workloads." if left else "",
        f"At the edge: beyond {FURTHEST:.0f}x either way; the table has the number." if _beyond(found) else "",
        where,
    ]
    figure = new_figure(ROLES_TITLE, notes, alarm)
    styles = label_styles([each.quant for each in report.profiled])
    legend(figure, {label: style for label, style in styles.items() if any(pair.own.quant == label for pair in pairs)})
    grid = figure.subplots(1, len(shown) * len(phases), squeeze=False, sharey=True, sharex=True)[0]
    parts = sorted({part for each in found for by in each.values() for part in by}, key=_order)
    for column, (axes, (table, phase), each) in enumerate(zip(grid, columns, found, strict=True)):
        _draw_panel(axes, each, parts, styles, first=column == 0)
        title = f"{table_title(table, tables)}, {phase}" if len(tables) > 1 else phase
        title_panel(axes, title, len(columns))
        axes.set_xlabel("speed-up")
    _scale(grid[0], [c for each in found for by in each.values() for c in by.values()], len(columns))
    return figure


def _phases(report: ProfileReport, pair: Reconciliation) -> list[Phase]:
    return [phase for phase in PHASES if phase in report.of(pair.own) and phase in report.of(pair.baseline)]


def _found(report: ProfileReport, pairs: Sequence[Reconciliation], phase: Phase) -> dict[str, dict[Part, Change]]:
    """By quant the parts that matter, each as shares of the baseline's step."""
    by_quant = {}
    for pair in pairs:
        if phase not in _phases(report, pair):
            continue
        own, baseline = report.of(pair.own)[phase], report.of(pair.baseline)[phase]
        all_parts = changes(
            {part: us / baseline.step_us for part, us in baseline.scaled.items()},
            {part: us / baseline.step_us for part, us in own.scaled.items()},
        )
        drawn = {change.part: change for change in all_parts if max(change.baseline, change.own) >= SMALL}
        if any(change.part[0] == QUANTIZE for change in all_parts):
            drawn[NET] = linear_with_quantize(all_parts)
        whole = Change(WHOLE, sum(c.baseline for c in all_parts), sum(c.own for c in all_parts))
        by_quant[pair.own.quant] = {part: c for part, c in {**drawn, WHOLE: whole}.items() if c.speedup is not None}
    return by_quant


def _beyond(found: Sequence[Mapping[str, Mapping[Part, Change]]]) -> bool:
    ratios = [change.speedup for each in found for by in each.values() for change in by.values() if change.speedup]
    return any(max(ratio, 1 / ratio) > FURTHEST for ratio in ratios)


def _draw_panel(
    axes: Axes,
    found: Mapping[str, Mapping[Part, Change]],
    parts: Sequence[Part],
    styles: Mapping[str, QuantStyle],
    first: bool,
) -> None:
    axes.axvline(1, color=INK, linewidth=1.5, zorder=1)
    heights = {part: -index for index, part in enumerate(parts)}
    for row, (quant, by_part) in enumerate(found.items()):
        # Quants are staggered, so that equal ones do not hide one another.
        off = 0.5 * ((len(found) - 1) / 2 - row) / max(2, len(found))
        for part, change in by_part.items():
            assert change.speedup is not None
            at = min(max(change.speedup, 1 / FURTHEST), FURTHEST)
            axes.plot([1, at], [heights[part] + off] * 2, color=styles[quant].colour, linewidth=2, alpha=0.5)
            axes.scatter(
                at, heights[part] + off, s=40 + 260 * change.baseline, color=styles[quant].colour,
                marker=styles[quant].marker, edgecolors=INK, linewidths=0.6, zorder=3,
            )  # fmt: skip
    axes.set_yticks(list(heights.values()), [_word(part) for part in parts])
    axes.set_ylim(-len(parts) + 0.4, 0.6)
    axes.tick_params(axis="y", length=0, labelleft=first, labelsize=13)
    axes.axhline(-len(parts) + 1.5, color=QUIET, linewidth=0.8)


def _scale(axes: Axes, found: Sequence[Change], panels: int) -> None:
    ratios = [change.speedup for change in found if change.speedup is not None]
    low, high = max(min([0.9, *ratios]), 1 / FURTHEST), min(max([1.1, *ratios]), FURTHEST)
    axes.set_xscale("log")
    axes.set_xlim(low / 1.12, high * 1.12)
    ticks = [tick for tick in TICKS if low / 1.12 <= tick <= high * 1.12]
    step = max(1, -(-len(ticks) * panels // 16))
    middle = ticks.index(1)
    axes.set_xticks([tick for number, tick in enumerate(ticks) if (number - middle) % step == 0])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def _order(part: Part) -> tuple[float, int, str]:
    """Linear layers first, then what they come to with quantizing, the whole step last."""
    if part == WHOLE:
        return (99.0, 0, "")
    if part == NET:
        return (0.5, 0, "")
    category, role, name = place(part)
    return (98.0 if part[0] == HOST_GAP else float(category), role, name)


def _word(part: Part) -> str:
    return "linear + quantize" if part == NET else part_word(part)


PHASE: Phase = "decode"


def timeline_figure(report: ProfileReport, where: str, alarm: str) -> Figure:
    """Draw the traced decode step of median duration of each quant, of the first rank, from its begin."""
    title = f"One {PHASE} step"
    found = {each.place: time_line(each, PHASE) for each in report.profiled}
    shown = [each for each in report.profiled if found[each.place] is not None]
    if not shown:
        return message_figure(title, f"There is no valid trace of a {PHASE} step yet.", alarm=alarm)
    lines = lines_of(shown)
    notes = [
        "As traced, so with the profiler's overhead: the step of median duration, of the first rank. Colour: what the "
        "device is busy with most of that moment; white: nothing.",
        lines.left_out,
        where,
    ]
    figure = new_figure(title, notes, alarm)
    axes = figure.subplots()
    draw_lines(axes, lines, True, 1)
    drawn = {name: line for name, line in found.items() if line is not None and name in lines.heights}
    for name, line in drawn.items():
        _draw(axes, line, lines.heights[name])
    axes.set_xlim(0, 1.01 * max(line.duration_us for line in drawn.values()) / 1000)
    axes.set_xlabel("ms since the step began")
    axes.xaxis.set_major_locator(MaxNLocator(10))
    axes.xaxis.set_major_formatter(thousands())
    busy = {category for line in drawn.values() for _, _, category in line.segments if category != HOST_GAP}
    category_legend(figure, busy)
    return figure


def _draw(axes: Axes, line: TimeLine, y: float) -> None:
    height = 0.7
    for category in dict.fromkeys(category for _, _, category in line.segments):
        if category != HOST_GAP:
            spans = [(begin / 1000, us / 1000) for begin, us, own in line.segments if own == category]
            axes.broken_barh(spans, (y - height / 2, height), facecolors=COLOURS[category], linewidth=0)
    axes.broken_barh(
        [(0, line.duration_us / 1000)], (y - height / 2, height), facecolors="none", edgecolors=QUIET, linewidth=0.8
    )
