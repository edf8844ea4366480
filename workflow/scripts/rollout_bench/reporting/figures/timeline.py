"""The time line of one decode step of each quant: what the device is busy with, moment by moment."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rollout_bench.analysis.profiles.profiled import HOST_GAP
from rollout_bench.analysis.profiles.report import ProfileReport
from rollout_bench.analysis.profiles.timeline import TimeLine, time_line
from rollout_bench.records.profile import Phase
from rollout_bench.reporting.figures.profile_frame import COLOURS, category_legend, draw_lines, lines_of
from rollout_bench.reporting.figures.style import QUIET, message_figure, new_figure, thousands

PHASE: Phase = "decode"


def timeline_figure(report: ProfileReport, where: str, alarm: str) -> Figure:
    """Draws the traced decode step of median duration of each quant, of the first rank, from its begin."""
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
    draw_lines(axes, lines, True, 100)
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
