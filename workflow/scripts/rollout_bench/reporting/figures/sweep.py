"""Throughput against latency over a sweep: what more load costs each request."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rollout_bench.analysis.rows import Row
from rollout_bench.analysis.saturation import t_interval
from rollout_bench.analysis.statistics import mean
from rollout_bench.keeping_up import KEPT_UP
from rollout_bench.plan.comparing import ComparisonSettings
from rollout_bench.reporting.figures.grids import draw_grid, models_of, online_rows, spread, whole_column_of
from rollout_bench.reporting.figures.style import (
    QuantStyle,
    legend,
    message_figure,
    new_figure,
    nothing,
    quant_styles,
    thousands,
)
from rollout_bench.reporting.numbers import plain_percent

TITLE = "Throughput and latency over the sweep"

MEASURES = {"ttft_s": "TTFT ms", "tpot_s": "TPOT ms"}

FAR = 20.0
"""Greatest over least latency in a row of panels from which on its axis is logarithmic."""


def sweep_figure(rows: Sequence[Row], settings: ComparisonSettings, where: str, alarm: str) -> Figure:
    """Draws mean TTFT and TPOT over output tok/s, a curve for each quant through the loads of its sweep."""
    swept = [row for row in rows if row.experiment.part is not None]
    rows = online_rows(swept)
    if not rows:
        return message_figure(TITLE, nothing(swept, "No sweep is measured yet."), alarm=alarm)
    measures = {m: label for m, label in MEASURES.items() if any(_values(row, m) for row in rows)} or {
        "e2el_s": "E2EL ms"
    }
    columns, left_out = spread([whole_column_of(row) for row in rows])
    notes = [
        "Point: one load of the sweep, mean over launches; lines join loads in their order. Cross: its "
        f"{plain_percent(settings.confidence)} t interval in both directions. Hollow: the server kept less than "
        f"{plain_percent(KEPT_UP)} of the rate.",
        left_out,
        models_of(columns),
        where,
    ]
    figure = new_figure(TITLE, notes, alarm)
    grid = draw_grid(figure, columns, list(measures.values()))
    styles = quant_styles(rows)
    for line, measure in zip(grid, measures, strict=True):
        for axes, column in zip(line, columns, strict=True):
            for label, style in styles.items():
                swept = [row for row in rows if whole_column_of(row) == column and row.quant_label == label]
                _draw(axes, swept, measure, style, settings.confidence)
            axes.xaxis.set_major_formatter(thousands())
            axes.set_xlim(left=0)
        _scale(line, [value for row in rows for value in _values(row, measure)])
    for axes in grid[-1]:
        axes.set_xlabel("output tok/s")
    legend(figure, styles)
    return figure


def _draw(axes: Axes, swept: Sequence[Row], measure: str, style: QuantStyle, confidence: float) -> None:
    points = []
    for row in swept:
        values = _values(row, measure)
        rates = [launch.output_tokens_per_s for launch in row.used]
        if not values:
            continue
        middle = mean(rates), mean(values)
        points.append(middle)
        across, up = t_interval(rates, confidence), t_interval(values, confidence)
        if across and up:
            look = {"color": style.colour, "linewidth": 1.5, "alpha": 0.7}
            axes.plot(across, [middle[1]] * 2, **look)  # type: ignore[arg-type]
            axes.plot([middle[0]] * 2, [max(up[0], 0.02 * middle[1]), up[1]], **look)  # type: ignore[arg-type]
        axes.plot(
            *middle,
            style.marker,
            color=style.colour,
            markerfacecolor="white" if _behind(row) else style.colour,
            markersize=9,
            zorder=3,
        )
    axes.plot([x for x, _ in points], [y for _, y in points], color=style.colour, linewidth=2)


def _values(row: Row, measure: str) -> list[float]:
    """The measure in milliseconds, of each launch that has it."""
    values = [getattr(launch.service, measure) for launch in row.used if launch.service]
    return [1000 * value for value in values if value is not None]


def _behind(row: Row) -> bool:
    kept = [launch.service.kept_up for launch in row.used if launch.service and launch.service.kept_up is not None]
    return bool(kept) and mean(kept) < KEPT_UP


def _scale(line: Sequence[Axes], values: Sequence[float]) -> None:
    if values and max(values) > FAR * min(values) > 0:
        line[0].set_yscale("log")
    else:
        line[0].set_ylim(bottom=0)
    line[0].yaxis.set_major_formatter(thousands())
