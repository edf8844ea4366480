"""Speed-ups against the baseline, with their intervals and the pairs of launches behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from rollout_bench.analysis.comparison import Comparison
from rollout_bench.analysis.metrics import METRICS
from rollout_bench.analysis.rows import Row
from rollout_bench.plan.comparing import ComparisonSettings
from rollout_bench.plan.fields import Metric
from rollout_bench.reporting.columns import verdict_text
from rollout_bench.reporting.figures.panels import Group, draw_frame, frame_of, group_of, heaviest, text_size
from rollout_bench.reporting.figures.style import (
    HALO,
    INK,
    QUIET,
    QuantStyle,
    message_figure,
    new_figure,
    quant_styles,
)
from rollout_bench.reporting.numbers import plain_percent, ratio

BEYOND = 1.0
"""How far intervals may stretch the axis: as much again, on each side, as the pairs and 1 span."""


_IN_PAIRS = "Diamond: geometric mean of the ratios in {} of launches with the same index. Circle: one such pair."
_APART = "Diamond: ratio of the geometric means in {} of the launches of both sides, which did not take turns."


@dataclass(frozen=True)
class Limits:
    """The axis, the same for all panels: it goes from `low` to `high`; intervals end at `cut`, labels begin there."""

    low: float
    cut: float
    high: float


def speedup_figure(
    rows: Sequence[Row], baseline: Mapping[str, str], settings: ComparisonSettings, where: str, alarm: str
) -> Figure:
    """Draws the speed-ups of `rows` over `baseline` (axis -> value), or says why there is none.

    Each panel in the first metric that has some: where requests arrive at a rate, throughput has none.
    """
    rows, swept = heaviest(rows)
    metrics = {group: _metric([row for row in rows if group_of(row) == group]) for group in map(group_of, rows)}
    rows = [
        replace(row, comparisons={metric: row.comparisons[metric]})
        for row in rows
        for metric in (metrics[group_of(row)],)
    ]
    name = ", ".join(baseline.values()) or "the baseline"
    title = f"Rollout speed-up over {name}"
    compared = [row for row in rows if row.comparison.speedup is not None]
    if not compared:
        return message_figure(title, _why_none(rows, name), alarm=alarm)
    shown = [row for row in rows if not row.comparison.is_baseline]
    frame = frame_of(shown)
    limits = _limits([row.comparison for row in compared], room=0.3 + 0.22 * len(frame.panels))
    figure = new_figure(title, [*_notes(compared, settings, limits, metrics), swept, frame.left_out, where], alarm)
    styles = quant_styles(rows)
    size = text_size(frame)
    for axes, group in zip(draw_frame(figure, frame), frame.panels, strict=True):
        axes.set_xlim(limits.low, limits.high)
        axes.axvline(1, color=INK, linewidth=1.5, zorder=1)
        for row in (row for row in shown if group_of(row) == group):
            y = frame.heights.get((row.experiment.model, row.quant_label))
            if y is None:
                continue
            if row.comparison.speedup is None:
                _annotate_right(axes, "no speed-up", y, QUIET, size)
            else:
                _draw_row(axes, row.comparison, y, styles[row.quant_label], size, limits)
                _annotate_right(axes, _label(row.comparison, settings), y, INK, size)
        axes.set_xlabel(f"{METRICS[metrics[group]].header} (x {name})")
        axes.xaxis.set_major_locator(MaxNLocator(max(4, 10 // len(frame.panels)), steps=[1, 2, 2.5, 5, 10]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
    return figure


def _metric(rows: Sequence[Row]) -> Metric:
    """The metric that most of `rows` have a speed-up in, the first of several."""
    return max(rows[0].comparisons, key=lambda m: sum(row.comparisons[m].speedup is not None for row in rows))


def _notes(
    compared: Sequence[Row], settings: ComparisonSettings, limits: Limits, metrics: Mapping[Group, Metric]
) -> list[str]:
    metric = ", ".join(dict.fromkeys(METRICS[metrics[group_of(row)]].name for row in compared))
    apart = any(row.comparison.sides for row in compared)
    how, needed = (_APART, "launches of each side") if apart else (_IN_PAIRS, "pairs of launches")
    notes = [
        f"{how.format(metric)} Band: {plain_percent(settings.confidence)} confidence interval, taken alone. "
        "^ faster, v slower (Holm over the table); ~ (< size): no difference found, this size would have been; "
        f"? too few {'launches' if apart else 'pairs'} or no valid ones."
    ]
    if any(row.comparison.verdict == "irrelevant" for row in compared):
        notes.append(f"~ (real): found, but below {plain_percent(settings.relevant_difference)}.")
    if any(_is_cut(row.comparison, limits) for row in compared):
        notes.append("Arrow: the interval goes on beyond the axis; the summary has its ends.")
    if all(row.comparison.low is None for row in compared):
        notes.append(f"No interval: it takes two {needed} that differ.")
    return notes


def _label(comparison: Comparison, settings: ComparisonSettings) -> str:
    assert comparison.speedup is not None
    # In words it would lie over the data of a narrow panel.
    text = "~ (real)" if comparison.verdict == "irrelevant" else verdict_text(comparison, settings)
    return f"{ratio(comparison.speedup)}x {text}"


def _draw_row(axes: Axes, comparison: Comparison, y: float, style: QuantStyle, size: float, limits: Limits) -> None:
    assert comparison.speedup is not None
    if comparison.low is not None and comparison.high is not None:
        ends = max(comparison.low, limits.low), min(comparison.high, limits.cut)
        axes.plot(ends, (y, y), color=style.colour, linewidth=6, alpha=0.5, solid_capstyle="butt")
        for end, marker, beyond in zip(ends, "<>", (comparison.low, comparison.high), strict=True):
            if end != beyond:
                axes.plot(end, y, marker=marker, markersize=0.9 * size, color=style.colour, clip_on=False, zorder=5)
    pairs = list(comparison.pairs.values())
    look = {"facecolors": "white", "edgecolors": style.colour, "linewidths": 1.5, "zorder": 3}
    axes.scatter(pairs, [y - 0.3] * len(pairs), s=0.15 * size**2, **look)  # type: ignore[arg-type]
    axes.scatter(comparison.speedup, y, s=0.4 * size**2, marker="D", color=style.colour, edgecolors=INK, zorder=4)


def _is_cut(comparison: Comparison, limits: Limits) -> bool:
    ends = comparison.low, comparison.high
    return any(end is not None and not limits.low <= end <= limits.cut for end in ends)


def _annotate_right(axes: Axes, text: str, y: float, colour: str, size: float) -> None:
    place = axes.get_yaxis_transform()
    axes.text(0.99, y, text, transform=place, ha="right", va="center", color=colour, fontsize=size, bbox=HALO)


def _limits(comparisons: Sequence[Comparison], room: float) -> Limits:
    """Speed-ups, pairs and 1 in view, intervals as far as `BEYOND` allows, and `room` on the right for the labels."""
    speedups = [c.speedup for c in comparisons if c.speedup is not None]
    pairs = [1.0, *speedups, *(ratio for c in comparisons for ratio in c.pairs.values())]
    ends = [end for c in comparisons for end in (c.low, c.high) if end is not None]
    width = max(max(pairs) - min(pairs), 0.05)
    low = max(min([*pairs, *ends]), min(pairs) - BEYOND * width, 0.0)
    cut = min(max([*pairs, *ends]), max(pairs) + BEYOND * width)
    margin = 0.05 * (cut - low) or 0.05
    return Limits(max(0.0, low - margin), cut + margin, cut + margin + room * (cut - low + 2 * margin))


def _why_none(rows: Sequence[Row], name: str) -> str:
    if not any(row.launches for row in rows):
        return "Nothing is measured yet."
    if all(row.comparison.is_baseline for row in rows):
        return f"Only {name} is selected: there is nothing to compare with it."
    reasons = dict.fromkeys(row.comparison.reason for row in rows if row.comparison.reason)
    return "No speed-up can be given: " + "; ".join(list(reasons)[:3]) + "."
