"""Throughput of each iteration, in order: what warms up and what drifts."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rollout_bench.analysis.rows import Row
from rollout_bench.reporting.figures.panels import Group, group_of, group_title, heaviest
from rollout_bench.reporting.figures.style import (
    QUIET,
    QuantStyle,
    legend,
    message_figure,
    new_figure,
    nothing,
    quant_styles,
    shorten,
    thousands,
)

TITLE = "Throughput of each iteration"

MAX_SIDE = 4
"""Models down and workloads across that fit on a slide."""


def iterations_figure(rows: Sequence[Row], where: str, alarm: str) -> Figure:
    """Draws output tok/s over the index of the iteration: a panel per model and workload, a line per launch."""
    if not any(row.used for row in rows):
        return message_figure(TITLE, nothing(rows, "Nothing is measured yet."), alarm=alarm)
    rows, swept = heaviest([row for row in rows if row.launches])
    groups = list(dict.fromkeys(map(group_of, rows)))
    models = list(dict.fromkeys(row.experiment.model for row in rows))
    notes = ["Line: one valid launch. Hollow, on grey: warm-up, never counted. The vertical axes do not begin at zero."]
    if len(groups) > MAX_SIDE or len(models) > MAX_SIDE:
        notes.append(f"Not shown for want of room: some of {len(models)} models and {len(groups)} workloads.")
    groups, models = groups[:MAX_SIDE], models[:MAX_SIDE]
    figure = new_figure(TITLE, [*notes, swept, where], alarm)
    grid = figure.subplots(len(models), len(groups), squeeze=False, sharex=True)
    styles = quant_styles(rows)
    for model, line in zip(models, grid, strict=True):
        for group, axes in zip(groups, line, strict=True):
            shown = [row for row in rows if row.experiment.model == model and group_of(row) == group]
            _draw_panel(axes, shown, styles)
            axes.set_title(_title(model, group, groups, 90 // len(groups)), loc="left", fontsize=14)
    for axes in grid[-1]:
        axes.set_xlabel("iteration")
    figure.supylabel("output tok/s", fontsize=15)
    drawn = {row.quant_label for row in rows if row.used}
    legend(figure, {label: style for label, style in styles.items() if label in drawn})
    return figure


def _draw_panel(axes: Axes, rows: Sequence[Row], styles: dict[str, QuantStyle]) -> None:
    launches = [(row, launch) for row in rows for launch in row.used]
    if not launches:
        text = "no valid launch" if rows else "not measured"
        axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=QUIET)
        axes.set_yticks([])
        return
    warmups = max(len(launch.warmup_output_tokens_per_s) for _, launch in launches)
    if warmups:
        axes.axvspan(-0.5, warmups - 0.5, color="#eeeeee", zorder=0)
    for row, launch in launches:
        style = styles[row.quant_label]
        warm, measured = launch.warmup_output_tokens_per_s, launch.iteration_output_tokens_per_s
        both = (*warm, *measured)
        axes.plot(range(len(both)), both, color=style.colour, linewidth=1.3, alpha=0.7)
        axes.plot(range(len(warm)), warm, style.marker, color=style.colour, markersize=6, mfc="white")
        axes.plot(range(len(warm), len(both)), measured, style.marker, color=style.colour, markersize=5)
    longest = max(
        len(launch.warmup_output_tokens_per_s) + len(launch.iteration_output_tokens_per_s) for _, launch in launches
    )
    axes.set_xlim(-0.5, max(axes.get_xlim()[1] if longest == 0 else longest - 0.5, 0.5))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(thousands())
    axes.margins(y=0.12)


def _title(model: str, group: Group, groups: Sequence[Group], characters: int) -> str:
    return shorten(f"{model}, {group_title(group, groups).removeprefix('workload ')}", characters)
