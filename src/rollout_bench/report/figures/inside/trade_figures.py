"""The figure of what a quantization trades: its speed-up over how far it drifts, and its right answers beside."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from rollout_bench.analysis.inside.trades import Trade, TradeOff
from rollout_bench.core.numbers import brief, plain_percent
from rollout_bench.plan.config import ComparisonSettings
from rollout_bench.report.figures.style import (
    HALO,
    INK,
    QUIET,
    label_styles,
    message_figure,
    new_figure,
    title_panel,
    width_of,
)

TITLE = "Speed against drift"

NONE = "No quantization was both scored and timed beside the reference of drift, or what that is made of."

MAX_PANELS = 3

SPREAD = 8.0
"""Of the drifts in a panel: from there on its axis is logarithmic."""

NO_WHISKER = "Where drift has no whisker, its interval is unbounded or not known."

SIZE = 14
"""Points of the type of labels."""


def trade_figure(trade_offs: Sequence[TradeOff], settings: ComparisonSettings, where: str, alarm: str) -> Figure:
    """Draw the speed-up of each quantization over its mean |d|, both with intervals; a panel for each reference.

    A baseline that drifts from the reference itself is a point like the others.
    """
    if not trade_offs:
        return message_figure(TITLE, NONE, alarm=alarm)
    shown = trade_offs[:MAX_PANELS]
    notes = [
        f"Speed-up over {_names(one.baseline.label for one in shown)}. d: log probability of a token less that of "
        f"{_names(one.reference.label for one in shown)}, which samples the tokens. Whiskers: "
        f"{plain_percent(settings.confidence)} intervals, of speed-ups together, of drift over sequences, taken alone. "
        "Grey band: drift of that against itself, the floor. Beside a name: problems answered rightly.",
        "" if all(map(_has_whisker, shown)) else NO_WHISKER,
        f"Not shown for want of room: {len(trade_offs) - len(shown)} of {len(trade_offs)}."
        if len(trade_offs) > len(shown)
        else "",
    ]
    figure = new_figure(TITLE, [*notes, where], alarm)
    styles = label_styles(one.label for each in shown for one in each.drifting)
    grid = figure.subplots(1, len(shown), squeeze=False)[0]
    for axes, each in zip(grid, shown, strict=True):
        own = each.baseline.row.experiment
        _frame(axes, each)
        for one in each.drifting:
            style = styles[one.label]
            (x, left, right), (y, low, high) = _drift(one), _speed(one)
            axes.plot([left, right], [y, y], color=style.colour, linewidth=2, zorder=2)
            axes.plot([x, x], [low, high], color=style.colour, linewidth=2, zorder=2)
            axes.plot([x], [y], style.marker, color=style.colour, markeredgecolor=INK, markersize=11, zorder=3)
        title_panel(axes, f"{own.model}, {own.workload}, {own.mode}", len(shown))
    figure.draw_without_rendering()  # now it is known where each point lies, so that labels can keep clear of them
    for axes, each in zip(grid, shown, strict=True):
        _label(axes, each)
    return figure


def _names(labels: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(labels))


def _has_whisker(each: TradeOff) -> bool:
    return all(one.drifted is None or one.drifted.found.size.has_ends for one in each.drifting)


def _drift(one: Trade) -> tuple[float, float, float]:
    assert one.drifted is not None, "of others than the reference"
    size = one.drifted.found.size
    return (size.value, size.low, size.high) if size.has_ends else (size.value, size.value, size.value)


def _speed(one: Trade) -> tuple[float, float, float]:
    value = 1.0 if one.speed.is_baseline else one.speed.speedup
    assert value is not None, "only what is compared is a trade"
    ends = (one.speed.low, one.speed.high)
    low, high = (value if end is None else end for end in ends)
    return value, low, high


def _frame(axes: Axes, each: TradeOff) -> None:
    drifts = [_drift(one) for one in each.drifting]
    floor = 0.0 if each.floor is None else each.floor.found.size.value
    means = [mean for mean, _, _ in drifts]
    if min(means) > 0 and min(low for _, low, _ in drifts) > 0 and max(means) > SPREAD * min(means):
        axes.set_xscale("log")
        lowest = min(low for _, low, _ in drifts)
        left = min(lowest, floor or lowest) / 1.6
        axes.set_xlim(left, 2.5 * max(high for _, _, high in drifts))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: brief(float(value), 3)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        left = 0.0
        axes.set_xlim(0.0, 1.25 * max([*(high for _, _, high in drifts), floor, 1e-9]))
        axes.xaxis.set_major_locator(MaxNLocator(5))
    if floor > left:
        axes.axvspan(left, floor, color="#eeeeee", zorder=0)
    speeds = [end for one in each.others for end in _speed(one)] + [1.0]
    margin = 0.15 * max(max(speeds) - min(speeds), 0.05)
    axes.set_ylim(min(speeds) - margin, max(speeds) + margin)
    axes.axhline(1.0, color=QUIET, linestyle="--", linewidth=1.2, zorder=1)
    away = "" if each.of_reference else f" from {each.reference.label}"
    axes.set_xlabel(f"mean |d|{away}, nats per token (better: left)")
    axes.set_ylabel(f"speed-up over {each.baseline.label} (better: up)")


def _label(axes: Axes, each: TradeOff) -> None:
    """Write the name of each point beside it, where no other name and no other point lies."""
    figure = axes.get_figure(root=True)
    assert figure is not None, "new_figure made it"
    scale = 72 / figure.dpi
    places = {one.label: axes.transData.transform((_drift(one)[0], _speed(one)[0])) * scale for one in each.drifting}
    edge = axes.get_window_extent().x1 * scale
    taken = [(x - 8, y - 8, x + 8, y + 8) for x, y in places.values()]
    texts = [(one.label, _text(one, one.label), one) for one in each.drifting]
    for label, text, one in texts:
        x, y = places[label]
        width, height = width_of(text, SIZE), 1.3 * SIZE
        chosen = None
        for rise in (9, -9 - height, 14 + height, -14 - 2 * height, 20 + 2 * height, -20 - 3 * height):
            for aside in (8.0, -8 - width):
                box = (x + aside, y + rise, x + aside + width, y + rise + height)
                free = all(box[2] < b[0] or b[2] < box[0] or box[3] < b[1] or b[3] < box[1] for b in taken)
                if free and box[2] <= edge:
                    chosen = (aside, rise, box)
                    break
            if chosen:
                break
        aside, rise, box = chosen or (8.0, 8, (x, y, x, y))
        taken.append(box)
        _write(axes, text, (_drift(one)[0], _speed(one)[0]), (aside, rise))
    if any(one is each.baseline for one in each.drifting):
        return  # it has its name beside its point
    right = each.baseline.answers
    name = f"{each.baseline.label}{'' if right is None else f', {100 * right[0] / right[1]:.1f} % right'}"
    axes.annotate(
        name, (1.0, 1.0), (-4, 3), xycoords=("axes fraction", "data"), textcoords="offset points", fontsize=SIZE,
        color=QUIET, ha="right", bbox=HALO, zorder=1.5,
    )  # fmt: skip


def _text(one: Trade, label: str) -> str:
    return label if one.answers is None else f"{label}, {100 * one.answers[0] / one.answers[1]:.1f} % right"


def _write(axes: Axes, text: str, at: tuple[float, float], offset: tuple[float, float]) -> None:
    axes.annotate(text, at, offset, textcoords="offset points", fontsize=SIZE, color=INK, ha="left", va="bottom")
