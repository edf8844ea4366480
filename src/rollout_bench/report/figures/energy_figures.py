"""Figure of energy: throughput over mean power, a point for each configuration, and lines of equal tokens per joule."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rollout_bench.analysis.stats.intervals import mean, t_interval
from rollout_bench.analysis.timed.rows import Row
from rollout_bench.contracts.metrics import METRICS
from rollout_bench.core.numbers import brief, plain_percent
from rollout_bench.plan.config import ComparisonSettings
from rollout_bench.report.figures.style import (
    HALO,
    INK,
    QUIET,
    WIDTH,
    QuantStyle,
    heaviest,
    keys,
    label_styles,
    legend_beside,
    limits,
    message_figure,
    new_figure,
    nothing,
    thousands,
    title_panel,
)

TITLE = "Throughput over power"

NONE = "Of no launch is the energy known. The summary says why, under Energy that is not known."

MAX_PANELS = 3
"""Beside the key, which takes the room of a fourth."""

PER_W, POWER = "tokens_per_s_per_w", "device_power_w"

LINES = 4
"""Lines of equal tokens per joule, about."""


def energy_figure(rows: Sequence[Row], settings: ComparisonSettings, where: str, alarm: str) -> Figure:
    """Draw output tok/s over mean power, both of a device, with both intervals; a panel for each model and workload."""
    rows, swept = heaviest(rows)
    known = [row for row in rows if _points(row)]
    if not known:
        return message_figure(TITLE, nothing(rows, NONE), alarm=alarm)
    panels = list(dict.fromkeys(map(_panel, known)))
    shown = panels[:MAX_PANELS]
    here = [row for row in known if _panel(row) in shown]
    labels = list(dict.fromkeys(row.label for row in here))
    notes = [
        f"Point: mean over launches; whiskers: {plain_percent(settings.confidence)} intervals of both means, taken "
        "alone, and cut where they leave the axis. Circle: one launch. On a dotted line a joule gives the same number "
        "of tokens. Both are of one device, over the time that its energy was read.",
        swept,
    ]
    if len(panels) > len(shown):
        notes.append(f"Not shown for want of room: {len(panels) - len(shown)} of {len(panels)} models and workloads.")
    figure = new_figure(TITLE, [*notes, where], alarm)
    styles = label_styles(labels)
    handles = keys(styles, 0.25 * WIDTH, 12)
    for handle in handles:
        handle.set_linestyle("none")
    legend_beside(figure, handles)
    grid = figure.subplots(1, len(shown), squeeze=False)[0]
    for axes, panel in zip(grid, shown, strict=True):
        _draw(axes, [row for row in here if _panel(row) == panel], styles, settings.confidence)
        mode, platform, model, workload = panel
        more = [word for place, word in enumerate((mode, platform)) if len({other[place] for other in panels}) > 1]
        title_panel(axes, ", ".join([model, workload, *more]), len(shown))
    return figure


def _panel(row: Row) -> tuple[str, str, str, str]:
    own = row.experiment
    return own.mode, own.platform, own.model, own.workload


def _points(row: Row) -> list[tuple[float, float]]:
    values = [launch.values for launch in row.used if PER_W in launch.values and POWER in launch.values]
    return [(each[POWER], each[PER_W] * each[POWER]) for each in values]


def _draw(axes: Axes, rows: Sequence[Row], styles: dict[str, QuantStyle], confidence: float) -> None:
    ends: tuple[list[float], list[float]] = ([], [])
    means: tuple[list[float], list[float]] = ([], [])
    for row in rows:
        style, points = styles[row.label], _points(row)
        sides = [power for power, _ in points], [rate for _, rate in points]
        x, y = map(mean, sides)
        axes.scatter(*sides, s=22, facecolors="none", edgecolors=style.colour, alpha=0.7, zorder=2)
        for across, values in enumerate(sides):
            means[across].extend(values)
            if interval := t_interval(values, confidence):
                ends[across].extend(interval)
                along = (list(interval), [y, y]) if across == 0 else ([x, x], list(interval))
                axes.plot(*along, color=style.colour, linewidth=1.5, zorder=2)
        axes.plot(x, y, style.marker, color=style.colour, markeredgecolor=INK, markersize=11, zorder=3)
    axes.set_xlim(limits(means[0], ends[0]))
    axes.set_ylim(limits(means[1], ends[1]))
    _equals(axes)
    axes.set_xlabel(f"{METRICS[POWER].header} (better: left)")
    axes.set_ylabel("output tok/s per device (better: up)")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(thousands())


def _equals(axes: Axes) -> None:
    """Draw lines of equal tokens per joule, which meet in the origin, and say where they leave the axes how many."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    least, most = bottom / right, top / max(left, 1e-9 * right)
    middle = (bottom + top) / (left + right)
    for per_joule in MaxNLocator(LINES).tick_values(max(least, 0.2 * middle), min(most, 3 * middle)):
        if not least < per_joule < most:
            continue
        begins = max(left, bottom / per_joule)
        x, y = (right, right * per_joule) if right * per_joule <= top else (top / per_joule, top)
        axes.plot([begins, x], [begins * per_joule, y], color=QUIET, linewidth=1, linestyle=":", zorder=1)
        axes.annotate(
            f"{brief(per_joule, 3)} tok/J",
            (x, y),
            (-4, -4) if y == top else (-4, 0),
            textcoords="offset points",
            fontsize=11,
            color=QUIET,
            ha="right",
            va="top" if y == top else "center",
            bbox=HALO,
            zorder=1.5,
        )
