"""When each replica was done in each iteration: how long the others waited for the slowest."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rollout_bench.analysis.replicas import Replicated, replicated
from rollout_bench.analysis.rows import Row
from rollout_bench.reporting.figures.style import (
    QUIET,
    QuantStyle,
    label_styles,
    legend,
    message_figure,
    new_figure,
    nothing,
    shorten,
)

TITLE = "When replicas were done"

ACROSS, DOWN = 3, 2
"""Panels that fit on a slide."""

NAMED = 6
"""Replicas that the legend has room for; of more all look alike but the slowest."""


def replicas_figure(rows: Sequence[Row], where: str, alarm: str) -> Figure:
    """Draws each replica's end over the measured iterations, launch after launch: a panel per experiment."""
    found = replicated(rows)
    if not found:
        of_replicas = [row for row in rows if row.experiment.has_replicas]
        message = nothing(of_replicas, "No experiment has data_parallel_size above 1.")
        return message_figure(TITLE, message, alarm=alarm)
    notes = ["Mark: one replica's last token, counted from the release of all. Line: waiting for the slowest."]
    if any(one.launches > 1 for one in found):
        notes.append("Dashed: another launch.")
    if len(found) > ACROSS * DOWN:
        notes.append(f"Not shown for want of room: {len(found) - ACROSS * DOWN} of {len(found)} experiments.")
    shown = found[: ACROSS * DOWN]
    figure = new_figure(TITLE, [*notes, where], alarm)
    columns = min(len(shown), ACROSS)
    grid = figure.subplots(-(-len(shown) // columns), columns, squeeze=False)
    most = max(len(one.each) for one in shown)
    styles = label_styles(f"replica {number}" for number in range(min(most, NAMED)))
    for axes, one in zip(grid.flat, shown, strict=False):
        _draw_panel(axes, one, list(styles.values()) if most <= NAMED else [])
        row = one.row
        name = f"{row.experiment.model}, {row.quant_label}, {row.experiment.workload}"
        axes.set_title(shorten(name, 100 // columns), loc="left", fontsize=14)
    for axes in list(grid.flat)[len(shown) :]:
        axes.set_axis_off()
    for axes in grid[-1]:
        axes.set_xlabel("measured iteration")
    for axes in grid[:, 0]:
        axes.set_ylabel("s after the release")
    if most <= NAMED:
        legend(figure, styles)
    return figure


def _draw_panel(axes: Axes, one: Replicated, styles: Sequence[QuantStyle]) -> None:
    place = 0
    for number, ends_s in enumerate(one.ends_s):
        if number:
            axes.axvline(place - 0.5, color=QUIET, linestyle="--", linewidth=1)
        for ends in ends_s:
            axes.vlines(place, min(ends), max(ends), color="#bbbbbb", linewidth=5, zorder=1)
            for replica, end in enumerate(ends):
                style = styles[replica] if styles else QuantStyle("#0072B2", "o")
                axes.plot(place, end, style.marker, color=style.colour, markersize=7, zorder=2)
            place += 1
    axes.set_xlim(-0.5, place - 0.5)
    axes.set_ylim(0, 1.08 * max(end for ends_s in one.ends_s for ends in ends_s for end in ends))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
    axes.xaxis.grid(False)
