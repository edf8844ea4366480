"""What the server says of itself over a pass: requests that run, and requests that wait."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rollout_bench.analysis.rows import Row
from rollout_bench.analysis.statistics import Array
from rollout_bench.records.online import ServerSample
from rollout_bench.reporting.figures.grids import column_of, draw_grid, models_of, nothing_online, online_rows, spread
from rollout_bench.reporting.figures.style import QUIET, legend, message_figure, new_figure, quant_styles, thousands

TITLE = "Requests in the server over a pass"

MEASURES = {"running": "running", "waiting": "waiting"}

LEAST = 5
"""Samples of a pass from which on it is drawn: two are taken beside it, when nothing runs."""

POINTS = 300
"""Moments that a pass is drawn at."""

Samples = Mapping[tuple[str, int], Sequence[ServerSample]]
"""By the place of the whole experiment and launch index."""


def server_figure(rows: Sequence[Row], samples: Samples, where: str, alarm: str) -> Figure:
    """Draws running and waiting requests over the time of each measured iteration, as the server told them."""
    if not online_rows(rows):
        return message_figure(TITLE, nothing_online(rows, "Nothing is measured online yet."), alarm=alarm)
    rows = online_rows(rows)
    if not any(samples.values()):
        return message_figure(TITLE, "No server told what it was doing: it has no /metrics.", alarm=alarm)
    columns, left_out = spread([column_of(row) for row in rows])
    notes = [
        "What /metrics said while a pass ran. Line: mean over the measured iterations of all valid launches that were "
        "not over yet; band: the least and the most of them.",
        left_out,
        models_of(columns),
        where,
    ]
    figure = new_figure(TITLE, notes, alarm)
    grid = draw_grid(figure, columns, [f"{label} requests" for label in MEASURES.values()], share_y=False)
    styles = quant_styles(rows)
    for line, field in zip(grid, MEASURES, strict=True):
        for axes, column in zip(line, columns, strict=True):
            drawn = [
                _draw(axes, row, samples, field, styles[row.quant_label].colour)
                for row in rows
                if column_of(row) == column
            ]
            if not any(drawn):
                place = axes.transAxes
                axes.text(0.5, 0.5, "too short to be sampled", transform=place, ha="center", color=QUIET)
            axes.set_ylim(0, max(1.0, axes.get_ylim()[1]))
            axes.yaxis.set_major_formatter(thousands())
    for axes in grid[-1]:
        axes.set_xlabel("s")
        axes.set_xlim(left=0)
        axes.xaxis.set_major_formatter(thousands())
    legend(figure, styles)
    return figure


def _draw(axes: Axes, row: Row, samples: Samples, field: str, colour: str) -> bool:
    """Whether there was something to draw."""
    used = {launch.launch for launch in row.used}
    passes = [
        [(s.at_s, value) for s in found if s.iteration == iteration.index and (value := getattr(s, field)) is not None]
        for record in row.experiment.records
        if record.launch in used
        for found in (samples.get((row.experiment.whole.place, record.launch), ()),)
        for iteration in record.iterations
        if not iteration.warmup
    ]
    passes = [each for each in passes if len(each) >= LEAST]
    if not passes:
        return False
    times = np.linspace(0, max(each[-1][0] for each in passes), POINTS)
    values = np.array([_at(times, *np.array(each).T) for each in passes])
    axes.fill_between(
        times, np.nanmin(values, axis=0), np.nanmax(values, axis=0), color=colour, alpha=0.15, linewidth=0
    )
    axes.plot(times, np.nanmean(values, axis=0), color=colour, linewidth=2)
    return True


def _at(times: Array, at_s: Array, values: Array) -> Array:
    """What the last sample before each of `times` said [n]; before the first one what that said, NaN after the last."""
    found = values[np.maximum(np.searchsorted(at_s, times, side="right") - 1, 0)]
    return np.where(times > at_s[-1], np.nan, found)
