"""Throughput: a bar for each experiment's mean, a point for each launch."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rollout_bench.analysis.rows import Row
from rollout_bench.analysis.statistics import mean
from rollout_bench.reporting.figures.panels import Frame, draw_frame, frame_of, group_of, heaviest, text_size
from rollout_bench.reporting.figures.style import (
    INK,
    QUIET,
    QuantStyle,
    message_figure,
    new_figure,
    nothing,
    quant_styles,
    thousands,
)
from rollout_bench.reporting.numbers import number

TITLE = "Rollout throughput"


def throughput_figure(rows: Sequence[Row], where: str, alarm: str) -> Figure:
    """Draws the output tok/s of `rows`; `where` names the machine; `alarm` says what must not be overlooked."""
    if not any(row.used for row in rows):
        return message_figure(TITLE, nothing(rows, "Nothing is measured yet."), alarm=alarm)
    rows, swept = heaviest(rows)
    frame = frame_of(rows)
    notes = ["Bar: mean over launches. Point: one launch, warm-up iterations not counted."]
    if max(len(row.used) for row in rows) == 1:
        notes.append("One launch each: the spread over launches is not known.")
    if any(row.used and len(row.used) < len(row.launches) for row in rows):
        notes.append("x: invalid launch, not in the mean, and not shown where it lies beyond the axis.")
    figure = new_figure(TITLE, [*notes, swept, frame.left_out, where], alarm)
    styles = quant_styles(rows)
    for axes, group in zip(draw_frame(figure, frame), frame.panels, strict=True):
        shown = [row for row in rows if group_of(row) == group]
        fastest = max((m.output_tokens_per_s for row in shown for m in row.used), default=0)
        axes.set_xlim(0, fastest * 1.28 or 1)
        for row in shown:
            y = frame.heights.get((row.experiment.model, row.quant_label))
            if y is not None:
                _draw_row(axes, frame, row, y, styles[row.quant_label])
        axes.set_xlabel("output tok/s")
        axes.xaxis.set_major_locator(MaxNLocator(max(4, 10 // len(frame.panels))))
        axes.xaxis.set_major_formatter(thousands())
    return figure


def _draw_row(axes: Axes, frame: Frame, row: Row, y: float, style: QuantStyle) -> None:
    size = text_size(frame)
    if not row.used:
        unmeasured = "failed" if row.experiment.failures else "not measured"
        text = "no valid launch" if row.launches else unmeasured  # with its codes it may not fit
        axes.annotate(text, (0, y), (6, 0), textcoords="offset points", va="center", color=QUIET, fontsize=size)
        return
    average = mean([launch.output_tokens_per_s for launch in row.used])
    axes.barh(y, average, height=0.78, color=style.colour, alpha=0.55, edgecolor=style.colour)
    limit = axes.get_xlim()[1]  # of what is valid; an invalid launch beyond it has no place
    shown = [launch for launch in row.launches if launch.output_tokens_per_s <= limit]
    for launch in shown:
        # Launches are staggered, so that equal ones do not hide one another.
        place = y + 0.5 * (0.5 - (launch.launch + 0.5) / (row.launches[-1].launch + 1))
        marker, edge = ("o", "white") if launch.valid else ("x", None)
        axes.scatter(launch.output_tokens_per_s, place, s=0.17 * size**2, marker=marker, color=INK, edgecolors=edge,
                     linewidths=0.8 if launch.valid else 1.5, zorder=3)  # fmt: skip
    end = max(launch.output_tokens_per_s for launch in shown)
    axes.annotate(number(average), (end, y), (8, 0), textcoords="offset points", va="center", fontsize=size, color=INK)
