"""The figure of profiles: the categories of a step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from rollout_bench.analysis.inside.breakdown import (
    Breakdown,
)
from rollout_bench.analysis.inside.profile_report import ProfileReport
from rollout_bench.analysis.inside.profiles import (
    CATEGORIES,
    HOST_GAP,
    OTHER,
    PHASES,
    ProfiledExperiment,
)
from rollout_bench.core.numbers import number
from rollout_bench.report.figures.style import (
    HALO,
    INK,
    MAX_LINES,
    MIN_HEIGHT,
    TOP,
    WIDTH,
    message_figure,
    new_figure,
    shorten,
    thousands,
)
from rollout_bench.report.tables.profile_tables import category_word

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
"""Okabe and Ito's palette (2008) and tints of it; large categories differ most."""

_IN_A_LINE = 5
"""Categories per line of the legend."""

Table = tuple[str, str, str]
"""Platform, model and workload: the key of a heading."""


@dataclass(frozen=True)
class Lines:
    """Height of each profile's line, by its place, and of each heading; one line is one unit high."""

    heights: dict[str, float]
    labels: dict[str, str]
    headings: dict[str, float]
    left_out: str

    @property
    def height(self) -> float:
        """Height from above the first heading to below the last line."""
        return TOP - min(self.heights.values()) + 0.6

    @property
    def text_size(self) -> float:
        """Size of the text beside a line, in points."""
        return min(14.0, 310 / max(self.height, MIN_HEIGHT))


def lines_of(profiled: Sequence[ProfiledExperiment]) -> Lines:
    """Lay out `profiled` (at least one), grouped by model and workload."""
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
    """Return model and workload, with the platform if there are several."""
    platform, model, workload = table
    return ", ".join([model, workload, *([platform] if len({other[0] for other in tables}) > 1 else [])])


def draw_lines(axes: Axes, lines: Lines, first: bool, across: int) -> None:
    """Draw ticks for the lines and headings above them in one of `across` panels; only the `first` panel has names."""
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
    """Draw the legend of the categories in `shown`, in two lines beside the title."""
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
    """Return a readable text colour on the category's colour."""
    red, green, blue = (int(COLOURS[category][place : place + 2], 16) for place in (1, 3, 5))
    return "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 140 else INK


STEPS_TITLE = "Where a step's time goes"

WIDE = 0.07
"""Minimum share of a panel's width for a segment with a label."""


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
