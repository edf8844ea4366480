"""Where a step's time goes: a stacked bar for each quant, a panel for each phase."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rollout_bench.analysis.profiles.breakdown import Breakdown
from rollout_bench.analysis.profiles.profiled import CATEGORIES, PHASES
from rollout_bench.analysis.profiles.report import ProfileReport
from rollout_bench.reporting.figures.profile_frame import (
    COLOURS,
    category_legend,
    draw_lines,
    ink_on,
    lines_of,
)
from rollout_bench.reporting.figures.style import INK, message_figure, new_figure, thousands
from rollout_bench.reporting.numbers import number

TITLE = "Where a step's time goes"

WIDE = 0.07
"""Share of a panel's width from which on a segment has its share written in it."""


def steps_figure(report: ProfileReport, where: str, alarm: str) -> Figure:
    """Draws the milliseconds of each category in a step without the profiler."""
    shown = [each for each in report.profiled if report.of(each)]
    if not shown:
        return message_figure(TITLE, "There is no valid profile yet.", alarm=alarm)
    lines = lines_of(shown)
    phases = [phase for phase in PHASES if any(phase in report.of(each) for each in shown)]
    notes = [
        "Bar: a step without the profiler, its categories from the trace; percent of the step inside, its milliseconds "
        "beside it.",
        lines.left_out,
        where,
    ]
    figure = new_figure(TITLE, notes, alarm)
    grid = figure.subplots(1, len(phases), sharey=True, squeeze=False)[0]
    for place, (axes, phase) in enumerate(zip(grid, phases, strict=True)):
        draw_lines(axes, lines, place == 0, 100 // len(phases))
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
