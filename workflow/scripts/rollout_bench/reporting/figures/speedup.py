"""Speed-ups against the baseline, with their spread over pairs of launches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from rollout_bench.analysis.comparison import MARKS, Comparison
from rollout_bench.analysis.rows import Row
from rollout_bench.reporting.figures.panels import draw_frame, frame_of, group_of, text_size
from rollout_bench.reporting.figures.style import (
    HALO,
    INK,
    QUIET,
    QuantStyle,
    message_figure,
    new_figure,
    quant_styles,
)
from rollout_bench.reporting.numbers import ratio


def speedup_figure(rows: Sequence[Row], baseline: Mapping[str, str], where: str, alarm: str) -> Figure:
    """Draws the speed-ups of `rows` over `baseline` (axis -> value); without any, says why there is none."""
    name = ", ".join(baseline.values()) or "the baseline"
    title = f"Rollout speed-up over {name}"
    compared = [row for row in rows if row.comparison.speedup is not None]
    if not compared:
        return message_figure(title, _why_none(rows, name), alarm=alarm)
    shown = [row for row in rows if not row.comparison.is_baseline]
    frame = frame_of(shown)
    notes = ["Diamond: ratio of mean output tok/s over all launches. Circle: one pair of launches; line: from the "
             "smallest pair to the largest. ^ faster, v slower, ~ no clear difference, by a simple rule."]  # fmt: skip
    if max(len(row.comparison.pairs) for row in compared) < 2:
        notes.append("One pair of launches at most: the spread is not known.")
    figure = new_figure(title, [*notes, frame.left_out, where], alarm)
    styles = quant_styles(rows)
    low, high = _limits([row.comparison for row in compared], room=0.15 + 0.13 * len(frame.panels))
    size = text_size(frame)
    for axes, group in zip(draw_frame(figure, frame), frame.panels, strict=True):
        axes.set_xlim(low, high)
        axes.axvline(1, color=INK, linewidth=1.5, zorder=1)
        for row in (row for row in shown if group_of(row) == group):
            y = frame.heights.get((row.experiment.model, row.quant_label))
            if y is None:
                continue
            if row.comparison.speedup is None:
                _annotate_right(axes, "no speed-up", y, QUIET, size)
            else:
                _draw_row(axes, row.comparison, y, styles[row.quant_label], size)
        axes.set_xlabel(f"speed-up (x {name})")
        axes.xaxis.set_major_locator(MaxNLocator(max(4, 10 // len(frame.panels)), steps=[1, 2, 2.5, 5, 10]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
    return figure


def _draw_row(axes: Axes, comparison: Comparison, y: float, style: QuantStyle, size: float) -> None:
    assert comparison.speedup is not None
    assert comparison.verdict is not None
    if comparison.spread is not None:
        axes.plot(comparison.spread, (y, y), color=style.colour, linewidth=6, alpha=0.5, solid_capstyle="butt")
        pairs = list(comparison.pairs.values())
        look = {"facecolors": "white", "edgecolors": style.colour, "linewidths": 1.5, "zorder": 3}
        axes.scatter(pairs, [y - 0.3] * len(pairs), s=0.15 * size**2, **look)  # type: ignore[arg-type]
    axes.scatter(comparison.speedup, y, s=0.4 * size**2, marker="D", color=style.colour, edgecolors=INK, zorder=4)
    label = f"{ratio(comparison.speedup)}x {MARKS[comparison.verdict]}"
    _annotate_right(axes, label, y, INK, size)


def _annotate_right(axes: Axes, text: str, y: float, colour: str, size: float) -> None:
    place = axes.get_yaxis_transform()
    axes.text(0.99, y, text, transform=place, ha="right", va="center", color=colour, fontsize=size, bbox=HALO)


def _limits(comparisons: Sequence[Comparison], room: float) -> tuple[float, float]:
    """Limits of the axis, the same for all panels: with 1 in view, and `room` on the right for the labels."""
    values = [1.0, *(c.speedup for c in comparisons if c.speedup is not None)]
    values += [value for c in comparisons for value in c.pairs.values()]
    low, high = min(values), max(values)
    width = max(high - low, 0.1)
    return low - 0.1 * width, high + room * width


def _why_none(rows: Sequence[Row], name: str) -> str:
    if not any(row.launches for row in rows):
        return "Nothing is measured yet."
    if all(row.comparison.is_baseline for row in rows):
        return f"Only {name} is selected: there is nothing to compare with it."
    reasons = dict.fromkeys(row.comparison.reason for row in rows if row.comparison.reason)
    return "No speed-up can be given: " + "; ".join(list(reasons)[:3]) + "."
