"""Figure of what is traded: throughput against another metric, a point for each configuration, and the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rollout_bench.analysis.stats.intervals import mean, t_interval
from rollout_bench.analysis.timed.answers import Front, FrontPoint, fronts
from rollout_bench.analysis.timed.precision import stop_of
from rollout_bench.analysis.timed.rows import Row
from rollout_bench.contracts.axes import DEFAULT_SETTING
from rollout_bench.contracts.metrics import METRICS
from rollout_bench.core.numbers import first_few, plain_percent
from rollout_bench.plan.config import ComparisonSettings, Precision
from rollout_bench.report.figures.style import (
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

TITLE = "Throughput against another metric"

NONE = (
    "No three configurations do the same work and have both a throughput of their own and another metric. Where "
    "requests arrive at a rate that is kept up with, throughput is the load's. Start-up is another metric only with "
    "startup_s in comparison.metrics: engines then start in turn."
)

MAX_PANELS = 3
"""Beside the key, which takes the room of a fourth."""


def pareto_figure(
    rows: Sequence[Row], settings: ComparisonSettings, precision: Precision | None, where: str, alarm: str
) -> Figure:
    """Draw output tok/s per device against another metric, and the front as steps; a panel for each work that is done.

    The title says who is on the front, the note of each panel too.
    """
    rows, swept = heaviest(rows)
    found = fronts(rows, settings, None if precision is None else stop_of(precision, settings.confidence))
    if not found:
        return message_figure(TITLE, nothing(rows, NONE), alarm=alarm)
    shown = found[:MAX_PANELS]
    labels = list(dict.fromkeys(point.row.label for front in shown for point in front.points))
    notes = [
        *(_answer(front, shown) for front in shown),
        "Solid, joined by steps: on the front, no other one is as good in both and better in one. Hollow: can't be "
        "told from the front. Pale: behind, another one surely is better in both. Point: mean over launches; whiskers: "
        f"its {plain_percent(settings.confidence)} interval, taken alone, and cut where it leaves the axis.",
        swept,
    ]
    if len(found) > len(shown):
        notes.append(f"Not shown for want of room: {len(found) - len(shown)} of {len(found)} loads.")
    figure = new_figure(_title(shown), [*notes, where], alarm)
    styles = label_styles(labels)
    numbers = {label: number for number, label in enumerate(labels, 1)}
    handles = keys({f"{numbers[label]}  {label}": styles[label] for label in labels}, 0.25 * WIDTH, 12)
    for handle in handles:
        handle.set_linestyle("none")
    legend_beside(figure, handles)
    grid = figure.subplots(1, len(shown), squeeze=False)[0]
    for axes, front in zip(grid, shown, strict=True):
        _draw(axes, front, styles, numbers, settings.confidence)
        title_panel(axes, _name(front, shown), len(shown))
    return figure


def _title(shown: Sequence[Front]) -> str:
    if len(shown) > 1:
        return TITLE
    return f"On the front: {first_few(shown[0].named('front'), 3)}"


def _answer(front: Front, shown: Sequence[Front]) -> str:
    """Return a sentence on who is on the front; with its name, where there are several."""
    of = f"{_name(front, shown)}: o" if len(shown) > 1 else "O"
    close = front.named("close")
    also = f"; can't be told from it: {first_few(close)}" if close else ""
    return f"{of}n the front of throughput and {METRICS[front.metric].header}: {first_few(front.named('front'))}{also}."


def _name(front: Front, shown: Sequence[Front]) -> str:
    settings = {point.row.experiment.setting for point in front.points}
    names = [front.model, front.workload, *(sorted(settings - {DEFAULT_SETTING}) if len(settings) == 1 else [])]
    names += [front.mode] if len({other.mode for other in shown}) > 1 else []
    names += [front.platform] if len({other.platform for other in shown}) > 1 else []
    return ", ".join(names)


def _draw(axes: Axes, front: Front, styles: dict[str, QuantStyle], numbers: dict[str, int], confidence: float) -> None:
    metric = METRICS[front.metric]
    ends: tuple[list[float], list[float]] = ([], [])
    means: tuple[list[float], list[float]] = ([], [])
    steps = []
    for point in front.points:
        sides = point.rates, [metric.factor * value for value in point.values]
        x, y = mean(sides[0]), mean(sides[1])
        if point.place == "front":
            steps.append((x, y))
        style = styles[point.row.label]
        for across, values in enumerate(sides):
            means[across].append(mean(values))
            if interval := t_interval(values, confidence):
                ends[across].extend(interval)
                along = (list(interval), [y, y]) if across == 0 else ([x, x], list(interval))
                axes.plot(*along, color=style.colour, linewidth=1.5, alpha=_alpha(point), zorder=2)
        axes.plot(
            x,
            y,
            style.marker,
            color=style.colour,
            markerfacecolor="white" if point.place == "close" else style.colour,
            markeredgecolor=INK if point.place == "front" else style.colour,
            markersize=11,
            alpha=_alpha(point),
            zorder=3,
        )
        axes.annotate(
            str(numbers[point.row.label]),
            (x, y),
            (8, 7),
            textcoords="offset points",
            fontsize=13,
            fontweight="bold" if point.place == "front" else "normal",
            color=INK if point.place == "front" else QUIET,
        )
    steps.sort()
    # as fast as a point at least, the best that is to be had is what the point has: the step goes to its left
    axes.step([x for x, _ in steps], [y for _, y in steps], where="pre", color=INK, linewidth=1.5, zorder=1)
    axes.set_xlim(limits(means[0], ends[0]))
    axes.set_ylim(limits(means[1], ends[1]))
    devices = " per device" if any(point.devices > 1 for point in front.points) else ""
    axes.set_xlabel(f"output tok/s{devices} (better: right)")
    axes.set_ylabel(f"{metric.header} (better: {'up' if metric.better == 'higher' else 'down'})")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(thousands())
    axes.yaxis.set_major_formatter(thousands())


def _alpha(point: FrontPoint) -> float:
    return 0.35 if point.place == "behind" else 1.0
