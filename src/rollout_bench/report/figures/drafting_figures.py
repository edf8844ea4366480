"""Figure of speculative decoding: what drafting gains, over how many sequences are decoded at once."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from rollout_bench.analysis.speculation.draft_gains import DraftGain, GainCourse, Over, courses_of
from rollout_bench.analysis.timed.precision import stop_of
from rollout_bench.analysis.timed.rows import Row
from rollout_bench.core.numbers import plain_percent
from rollout_bench.plan.config import ComparisonSettings, Precision
from rollout_bench.report.figures.style import (
    QUIET,
    QuantStyle,
    label_styles,
    legend,
    message_figure,
    new_figure,
    nothing,
    title_panel,
)

TITLE = "Where speculative decoding pays"

NONE = "No setting that drafts is compared with one that decodes without, by the number of sequences."

MOST_LINES = 7
"""In a panel: as many as there are colours."""

PANELS: dict[Over, tuple[str, str]] = {
    "batch": ("Over the batch", "sequences at once in each engine"),
    "tail": ("As a step ends", "sequences left in each engine"),
}
"""Title and axis of the panel of each kind of course."""


def drafting_figure(
    rows: Sequence[Row], settings: ComparisonSettings, precision: Precision | None, where: str, alarm: str
) -> Figure:
    """Draw the speed-up by drafts over the number of sequences: loads in one panel, steps of rollouts in another."""
    stop = None if precision is None else stop_of(precision, settings.confidence)
    courses = courses_of(rows, settings, stop)
    if not courses:
        return message_figure(TITLE, nothing(rows, NONE), alarm=alarm)
    panels = [(over, drawn) for over in PANELS if (drawn := [one for one in courses if one.over == over])]
    notes = [
        f"Point: speed-up over the same engine without drafts; bar: its {plain_percent(settings.confidence)} interval. "
        "Filled: faster or slower for sure. Above the line drafting pays. As a step ends it is the pace of a sequence, "
        "and a point stands for all sizes down to the one before."
    ]
    left_out = sum(max(0, len(drawn) - MOST_LINES) for _, drawn in panels)
    if left_out:
        notes.append(f"Not shown for want of room: {left_out} of {len(courses)} lines.")
    figure = new_figure(TITLE, [*notes, where], alarm)
    names = {id(course): _name(course, courses) for course in courses}
    styles = label_styles(dict.fromkeys(names[id(course)] for _, drawn in panels for course in drawn[:MOST_LINES]))
    legend(figure, styles)
    grid = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axes, (over, drawn) in zip(grid, panels, strict=True):
        for course in drawn[:MOST_LINES]:
            _draw(axes, course, styles[names[id(course)]])
        _arrange(axes, [gain for course in drawn[:MOST_LINES] for gain in course.gains])
        title, label = PANELS[over]
        title_panel(axes, title, len(panels))
        axes.set_xlabel(label)
    grid[0].set_ylabel("speed-up by drafts")
    return figure


def _name(course: GainCourse, courses: Sequence[GainCourse]) -> str:
    own = course.row.experiment
    several = {one.row.experiment.model for one in courses}, {one.row.experiment.mode for one in courses}
    words = [name for name, of in zip((own.model, own.mode), several, strict=True) if len(of) > 1]
    loads = {one.row.experiment.workload for one in courses if one.over == "tail"}
    return " ".join([*words, course.row.label, *([own.workload] if course.over == "tail" and len(loads) > 1 else [])])


def _draw(axes: Axes, course: GainCourse, style: QuantStyle) -> None:
    sizes = [gain.high for gain in course.gains]
    speedups = [gain.comparison.speedup or 0.0 for gain in course.gains]
    axes.plot(sizes, speedups, color=style.colour, linewidth=2, zorder=2)
    for gain, size, speedup in zip(course.gains, sizes, speedups, strict=True):
        low, high = gain.comparison.low, gain.comparison.high
        if low is not None and high is not None:
            axes.plot([size, size], [low, high], color=style.colour, linewidth=1.5, zorder=2)
        sure = gain.comparison.verdict in ("faster", "slower")
        axes.plot(
            size, speedup, style.marker, color=style.colour if sure else "white", markeredgecolor=style.colour,
            markersize=9, zorder=3,
        )  # fmt: skip


def _arrange(axes: Axes, gains: Sequence[DraftGain]) -> None:
    axes.set_xscale("log", base=2)
    axes.axhline(1, color=QUIET, linestyle="--", linewidth=1, zorder=1)
    axes.xaxis.set_major_locator(FixedLocator(sorted({gain.high for gain in gains})))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    # an interval of few launches may be so wide that nothing else would be seen
    points = [gain.comparison.speedup or 1.0 for gain in gains]
    axes.set_ylim(max(0, min([0.8, *points]) - 0.3), max([1.2, *points]) + 0.5)
