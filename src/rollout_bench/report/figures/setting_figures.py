"""The figure of swept settings: throughput over a number, with its interval, a line for each quantization."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from rollout_bench.analysis.stats.intervals import mean, t_interval
from rollout_bench.analysis.timed.answers import Swept, lines_over
from rollout_bench.analysis.timed.rows import Row
from rollout_bench.core.numbers import plain_percent
from rollout_bench.plan.config import ComparisonSettings
from rollout_bench.report.figures.style import (
    ROOM,
    WIDTH,
    QuantStyle,
    keys,
    label_styles,
    message_figure,
    new_figure,
    nothing,
    thousands,
    title_panel,
)

TITLE = "Throughput over a setting"

WIDE = 8
"""Ratio of largest to smallest number from which the axis is logarithmic."""

MAX_PANELS = 4


def settings_figure(rows: Sequence[Row], settings: ComparisonSettings, where: str, alarm: str) -> Figure:
    """Draw output tok/s over the swept number of the settings; a panel for each model and workload."""
    name, lines = lines_over(rows)
    if not lines:
        return message_figure(TITLE, nothing(rows, "No setting goes through three numbers."), alarm=alarm)
    panels = list(dict.fromkeys((line.mode, line.platform, line.model, line.workload) for line in lines))
    notes = [
        f"Point: mean over launches. Band: {plain_percent(settings.confidence)} interval of that mean, taken alone. "
        "Circle: one launch. Whether two differ, the tables say: launches that took turns share what the machine did."
    ]
    if len(panels) > MAX_PANELS:
        notes.append(f"Not shown for want of room: {len(panels) - MAX_PANELS} of {len(panels)} models and workloads.")
    figure = new_figure(f"Throughput over {name}", [*notes, where], alarm)
    styles = label_styles(line.label for line in lines)
    shown = panels[:MAX_PANELS]
    for place, panel in enumerate(shown):
        axes = figure.add_subplot(1, len(shown), place + 1)
        here = [line for line in lines if (line.mode, line.platform, line.model, line.workload) == panel]
        for line in here:
            _draw(axes, line, styles[line.label], settings.confidence)
        _arrange(axes, sorted({value for line in here for value, _ in line.rows}))
        axes.set_xlabel(name)
        axes.set_ylabel("output tok/s" if not place else "")
        mode, platform, model, workload = panel
        words = [
            model,
            workload,
            *(word for word, of in ((mode, 0), (platform, 1)) if len({p[of] for p in panels}) > 1),
        ]
        title_panel(axes, ", ".join(words), len(shown))
    # labels of several words do not fit beside the title
    figure.axes[0].legend(handles=keys(styles, 0.5 * WIDTH / len(shown), 12), loc="best", frameon=False, fontsize=12)
    return figure


def _draw(axes: Axes, line: Swept, style: QuantStyle, confidence: float) -> None:
    values = [value for value, _ in line.rows]
    rates = [[launch.output_tokens_per_s for launch in row.used] for _, row in line.rows]
    axes.plot(
        values, [mean(each) for each in rates], color=style.colour, marker=style.marker, linewidth=2, markersize=8
    )
    bands = [(value, band) for value, each in zip(values, rates, strict=True) if (band := t_interval(each, confidence))]
    if bands:
        low, high = ([band[end] for _, band in bands] for end in (0, 1))
        axes.fill_between([value for value, _ in bands], low, high, color=style.colour, alpha=0.18, linewidth=0)
    for value, each in zip(values, rates, strict=True):
        axes.scatter([value] * len(each), each, s=22, facecolors="none", edgecolors=style.colour, alpha=0.7)


def _arrange(axes: Axes, values: Sequence[float]) -> None:
    if values[0] > 0 and values[-1] / values[0] >= WIDE:
        axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(values))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axes.set_ylim(0, ROOM * axes.get_ylim()[1])
    axes.yaxis.set_major_formatter(thousands())
