"""Goodput: requests per second that were served well enough, beside those that were served."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rollout_bench.analysis.rows import Row
from rollout_bench.analysis.saturation import t_interval
from rollout_bench.analysis.statistics import mean
from rollout_bench.plan.comparing import ComparisonSettings
from rollout_bench.plan.serving import Slo
from rollout_bench.reporting.figures.grids import (
    Column,
    draw_grid,
    models_of,
    nothing_online,
    online_rows,
    spread,
    whole_column_of,
)
from rollout_bench.reporting.figures.style import legend, message_figure, new_figure, quant_styles, thousands
from rollout_bench.reporting.numbers import plain_percent

TITLE = "Goodput"

MIN_LOADS = 3
"""Room for so many loads in each panel."""

WIDTH = 0.8
"""Of the bars of one load together; loads are one apart."""


def goodput_figure(rows: Sequence[Row], slo: Slo, settings: ComparisonSettings, where: str, alarm: str) -> Figure:
    """Draws the goodput of each load, a bar per quant, within that of all requests that succeeded."""
    limits = ", ".join(f"{name.removesuffix('_ms').upper()} {limit:g} ms" for name, limit in slo.named.items())
    if not limits:
        return message_figure(TITLE, "slo has no limit, so nothing is good or bad.", alarm=alarm)
    good = [row for row in online_rows(rows) if _good(row)]
    if not good:
        message = nothing_online(rows, f"Nothing is measured online yet that tells ({limits}).")
        return message_figure(TITLE, message, alarm=alarm)
    rows = good
    columns, left_out = spread([whole_column_of(row) for row in rows])
    notes = [
        f"Bar: requests per second that kept {limits}; outline: all that succeeded; means over launches. Line: "
        f"{plain_percent(settings.confidence)} t interval of the goodput.",
        left_out,
        models_of(columns),
        where,
    ]
    figure = new_figure(f"{TITLE}: {limits}", notes, alarm)
    (grid,) = draw_grid(figure, columns, ["requests/s"], share_x=False)
    for axes, column in zip(grid, columns, strict=True):
        _draw(axes, rows, column, settings.confidence)
    legend(figure, quant_styles(rows))
    return figure


def _draw(axes: Axes, rows: Sequence[Row], column: Column, confidence: float) -> None:
    styles = quant_styles(rows)
    shown = [row for row in rows if whole_column_of(row) == column]
    loads = list(dict.fromkeys(_load(row) for row in shown))
    width = WIDTH / len(styles)
    for row in shown:
        x = loads.index(_load(row)) + width * (list(styles).index(row.quant_label) - (len(styles) - 1) / 2)
        colour = styles[row.quant_label].colour
        good = _good(row)
        services = [launch.service for launch in row.used if launch.service]
        axes.bar(x, mean([service.requests_per_s for service in services]), width, color="none", edgecolor=colour)
        axes.bar(x, mean(good), width, color=colour, alpha=0.6)
        interval = t_interval(good, confidence)
        if interval:
            axes.plot([x, x], [max(0.0, interval[0]), interval[1]], color=colour, linewidth=2)
    room = max(0.0, (MIN_LOADS - len(loads)) / 2)  # else a single load has bars as broad as the panel
    axes.set_xlim(-0.5 - room, len(loads) - 0.5 + room)
    axes.set_xticks(range(len(loads)), [load.replace(" ", "\n", 1) for load in loads])
    axes.grid(axis="x", visible=False)
    axes.yaxis.set_major_formatter(thousands())


def _load(row: Row) -> str:
    point = row.experiment.records[0].iterations[0].point
    return point.label if point else ""


def _good(row: Row) -> list[float]:
    values = [launch.service.goodput_requests_per_s for launch in row.used if launch.service]
    return [value for value in values if value is not None]
