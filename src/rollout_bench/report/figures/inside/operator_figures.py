"""Break-even curves: how much faster each quant's linear layers are, over the tokens in a call."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from rollout_bench.analysis.inside.curves import OperatorsRun
from rollout_bench.core.numbers import plain_percent
from rollout_bench.report.figures.style import (
    INK,
    QUIET,
    QuantStyle,
    label_styles,
    legend,
    message_figure,
    new_figure,
    title_panel,
)

TITLE = "Linear layers alone: speed-up"

MAX_PANELS = 8
"""Panels that fit on a slide, in two lines."""

Panel = tuple[str, str, str, str]
"""Platform, model, workload and the name of the shape."""


def operators_figure(runs: Sequence[OperatorsRun], where: str, alarm: str) -> Figure:
    """Draw the speed-ups of `runs` over M, a panel for each shape, a line with its interval for each quant."""
    panels = list(dict.fromkeys((*run.place, name) for run in runs for name in run.against or ()))
    if not panels:
        return message_figure(TITLE, _why_none(runs), alarm=alarm)
    shown = panels[:MAX_PANELS]
    compared = [run for run in runs if run.against]
    confidence = plain_percent(compared[0].confidence)
    over = {against.speedup.over for run in compared for against in (run.against or {}).values()}
    bands = {
        "launches": f"Band: {confidence} interval over launches.",
        "rounds": f"Band: {confidence} interval over the rounds of one launch; launches may differ more.",
        "nothing": "",
    }
    baselines = ", ".join(dict.fromkeys(run.baseline.label for run in compared if run.baseline))
    notes = [
        f"Above 1: faster than {baselines}. Dashed: sequences that decode at once.",
        *(bands[each] for each in sorted(over)),
        *([f"Not shown for want of room: {len(panels) - len(shown)} of {len(panels)}."] if shown != panels else []),
        _same(shown),
        where,
    ]
    figure = new_figure(TITLE, notes, alarm)
    styles = label_styles(run.label for run in runs)
    legend(figure, {label: style for label, style in styles.items() if any(run.label == label for run in compared)})
    lines, columns = (1, len(shown)) if len(shown) <= 3 else (2, -(-len(shown) // 2))
    grid = figure.subplots(lines, columns, squeeze=False, sharey=True)
    places = grid.ravel()
    for axes, panel in zip(places, shown, strict=False):
        own = [run for run in compared if run.place == panel[:3] and panel[3] in (run.against or {})]
        _draw(axes, own, panel[3], styles)
        title_panel(axes, _title(panel, shown, own[0]), columns)
    for axes in places[len(shown) :]:
        axes.set_axis_off()
    for number, axes in enumerate(places[: len(shown)]):
        if number + columns >= len(shown):
            axes.set_xlabel("tokens in a call (M)")
    for line in grid:
        line[0].set_ylabel("speed-up")
    _scale(grid[0][0])
    return figure


def _draw(axes: Axes, runs: Sequence[OperatorsRun], name: str, styles: dict[str, QuantStyle]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.axhline(1, color=INK, linewidth=1.2, zorder=1)
    for batch in {run.decode_batch for run in runs}:
        axes.axvline(batch, color=QUIET, linewidth=1.2, linestyle="--", zorder=1)
    tokens: set[int] = set()
    for run in runs:
        against = (run.against or {})[name]
        style, ratio = styles[run.label], against.speedup
        if ratio.over != "nothing":
            axes.fill_between(against.tokens, ratio.low, ratio.high, color=style.colour, alpha=0.2, linewidth=0)
        axes.plot(
            against.tokens, ratio.value, color=style.colour, marker=style.marker, markersize=6, linewidth=2, zorder=3
        )
        tokens |= set(against.tokens)
    axes.xaxis.set_major_locator(FixedLocator(_ticks(sorted(tokens))))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _scale(axes: Axes) -> None:
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(FixedLocator(_ratios(*axes.get_ylim())))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))


def _ticks(tokens: Sequence[int]) -> list[int]:
    """Return every other power of two or so: as many as have room below a panel."""
    powers = [each for each in tokens if each & (each - 1) == 0] or list(tokens)
    return powers[:: max(1, -(-len(powers) // 6))]


def _ratios(low: float, high: float) -> list[float]:
    """Round speed-ups from `low` to `high`, as many as have room beside a panel."""
    fine = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.35, 1.5, 1.75, 2.0)
    coarse = (0.02, 0.05, 0.1, 0.25, 0.5, 0.7, 1.0, 1.4, 2.0, 3.0, 4.0, 6.0, 8.0, 16.0, 32.0)
    steps = coarse if high > 2 * low else fine
    return [step for step in steps if 0.95 * low <= step <= 1.05 * high] or [1.0]


def _title(panel: Panel, panels: Sequence[Panel], run: OperatorsRun) -> str:
    shape = run.linears[panel[3]]
    names = [part for place, part in enumerate(panel[:3]) if len({other[place] for other in panels}) > 1]
    text = f"{shape.role}, {shape.in_features} x {shape.out_features}"
    return ", ".join([*names, text])


def _same(panels: Sequence[Panel]) -> str:
    named = [
        f"{what} {panels[0][place]}"
        for place, what in ((1, "model"), (2, "workload"))
        if len({panel[place] for panel in panels}) == 1
    ]
    text = ", ".join(named)
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _why_none(runs: Sequence[OperatorsRun]) -> str:
    if not runs:
        return "There is no valid launch that timed linear layers yet."
    reasons = list(dict.fromkeys(run.reason for run in runs if run.reason))
    if not reasons:
        return "Only the baseline is timed: there is nothing to compare with it."
    return "No speed-up can be given: " + "; ".join(reasons[:3]) + "."
