"""Figures of timed launches: throughput, iterations, speed-ups, replicas."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from rollout_bench.analysis.stats.intervals import mean
from rollout_bench.analysis.timed.balance import Replicated, replicated
from rollout_bench.analysis.timed.comparison import MARKS, Comparison
from rollout_bench.analysis.timed.launches import LaunchMeasures
from rollout_bench.analysis.timed.rows import Row
from rollout_bench.contracts.metrics import METRICS, MetricName
from rollout_bench.core.numbers import number, plain_percent, ratio
from rollout_bench.plan.config import ComparisonSettings
from rollout_bench.report.figures.style import (
    INK,
    QUIET,
    WIDTH,
    Frame,
    Group,
    QuantStyle,
    draw_frame,
    frame_of,
    group_of,
    group_title,
    heaviest,
    label_styles,
    legend,
    message_figure,
    new_figure,
    nothing,
    quant_styles,
    text_size,
    thousands,
    title_panel,
    width_of,
    wrapped,
)
from rollout_bench.report.headings import verdict_text

THROUGHPUT_TITLE = "Rollout throughput"


def throughput_figure(rows: Sequence[Row], where: str, alarm: str) -> Figure:
    """Draw the output tok/s of `rows`; `where` names the machine; `alarm` is a warning."""
    if not any(row.used for row in rows):
        return message_figure(THROUGHPUT_TITLE, nothing(rows, "Nothing is measured yet."), alarm=alarm)
    rows, swept = heaviest(rows)
    styles = quant_styles(rows)
    rows = _of_groups_with(rows, lambda row: bool(row.used))
    frame = frame_of(rows)
    notes = ["Bar: mean over launches. Point: one launch, warm-up iterations not counted."]
    if max(len(row.used) for row in rows) == 1:
        notes.append("One launch each: the spread over launches is not known.")
    if any(row.used and len(row.used) < len(row.launches) for row in rows):
        notes.append("x: invalid launch, not in the mean, and not shown where it lies beyond the axis.")
    figure = new_figure(THROUGHPUT_TITLE, [*notes, swept, frame.left_out, where], alarm)
    for axes, group in zip(draw_frame(figure, frame), frame.panels, strict=True):
        shown = [row for row in rows if group_of(row) == group]
        fastest = max((m.output_tokens_per_s for row in shown for m in row.used), default=0)
        axes.set_xlim(0, fastest * 1.28 or 1)
        for row in shown:
            y = frame.heights.get((row.experiment.model, row.label))
            if y is not None:
                _draw_throughput(axes, frame, row, y, styles[row.label])
        axes.set_xlabel("output tok/s")
        axes.xaxis.set_major_locator(MaxNLocator(max(4, 10 // len(frame.panels))))
        axes.xaxis.set_major_formatter(thousands())
    return figure


def _of_groups_with(rows: Sequence[Row], shows: Callable[[Row], bool]) -> list[Row]:
    """Return the `rows` whose panel shows at least one row, so that no panel is empty."""
    groups = {group_of(row) for row in rows if shows(row)}
    return [row for row in rows if group_of(row) in groups]


def _draw_throughput(axes: Axes, frame: Frame, row: Row, y: float, style: QuantStyle) -> None:
    size = text_size(frame)
    if not row.used:
        unmeasured = "failed" if row.experiment.failures else "not measured"
        text = "no valid launch" if row.launches else unmeasured  # with flag codes it may not fit
        axes.annotate(text, (0, y), (6, 0), textcoords="offset points", va="center", color=QUIET, fontsize=size)
        return
    average = mean([launch.output_tokens_per_s for launch in row.used])
    axes.barh(y, average, height=0.78, color=style.colour, alpha=0.55, edgecolor=style.colour)
    limit = axes.get_xlim()[1]  # of valid launches; an invalid launch beyond it is not drawn
    shown = [launch for launch in row.launches if launch.output_tokens_per_s <= limit]
    for launch in shown:
        # Launches are staggered, so that equal ones remain visible.
        place = y + 0.5 * (0.5 - (launch.launch + 0.5) / (row.launches[-1].launch + 1))
        marker, edge = ("o", "white") if launch.valid else ("x", None)
        axes.scatter(launch.output_tokens_per_s, place, s=0.17 * size**2, marker=marker, color=INK, edgecolors=edge,
                     linewidths=0.8 if launch.valid else 1.5, zorder=3)  # fmt: skip
    place, side = _place_of_value(average, [launch.output_tokens_per_s for launch in shown], limit)
    axes.annotate(
        number(average), (place, y), (8 if side == "left" else -8, 0), textcoords="offset points", ha=side, va="center",
        fontsize=size, color=INK,
    )  # fmt: skip


VALUE_ROOM = 0.14
"""Share of the axis that a value needs beside its bar's end; half of it with several panels side by side."""


def _place_of_value(average: float, rates: Sequence[float], limit: float) -> tuple[float, Literal["left", "right"]]:
    """Return the position of a bar's value on an axis that ends at `limit`, and the side of the text at that position.

    The value is after the bar's end unless a point is in the way. Otherwise it is inside the bar, before the first
    point, if the bar is long enough. Beside a point beyond the bar, it would look like the point's value.
    """
    room, first = VALUE_ROOM * limit, min([average, *rates])
    in_the_way = any(average < rate < average + room for rate in rates)
    return (first, "right") if in_the_way and first > 2 * room else (average, "left")


ITERATIONS_TITLE = "Throughput of each iteration"

MAX_TICKS = 16
"""Maximum number of tick labels for first and last rounds of blocks."""

MAX_SIDE = 4
"""Maximum number of models down and workloads across on a slide."""


def iterations_figure(rows: Sequence[Row], where: str, alarm: str) -> Figure:
    """Draw output tok/s over the index of the iteration: a panel per model and workload, a line per launch.

    Interleaved launches are drawn block after block over the rounds, so that iterations of one round are above each
    other.
    """
    if not any(row.used for row in rows):
        return message_figure(ITERATIONS_TITLE, nothing(rows, "Nothing is measured yet."), alarm=alarm)
    styles = quant_styles(rows)
    rows, swept = heaviest([row for row in rows if row.used])
    models = list(dict.fromkeys(row.experiment.model for row in rows))
    groups = list(dict.fromkeys(map(group_of, rows)))
    shown = [row for row in rows if row.experiment.model in models[:MAX_SIDE] and group_of(row) in groups[:MAX_SIDE]]
    in_blocks = _have_blocks_in_common(shown)
    notes = _notes_on_blocks(shown) if in_blocks else ["Line: one valid launch."]
    notes += ["Hollow, on grey: warm-up, never counted. The vertical axes do not begin at zero."]
    if len(groups) > MAX_SIDE or len(models) > MAX_SIDE:
        notes.append(f"Not shown for want of room: some of {len(models)} models and {len(groups)} workloads.")
    groups, models = groups[:MAX_SIDE], models[:MAX_SIDE]
    figure = new_figure(ITERATIONS_TITLE, [*notes, swept, where], alarm)
    drawn = {row.label for row in shown}
    legend(figure, {label: style for label, style in styles.items() if label in drawn})
    grid = figure.subplots(len(models), len(groups), squeeze=False, sharex=not in_blocks)
    for model, line in zip(models, grid, strict=True):
        for group, axes in zip(groups, line, strict=True):
            here = [row for row in shown if row.experiment.model == model and group_of(row) == group]
            axes.set_visible(bool(here))
            if here:
                (_draw_blocks if in_blocks else _draw_iterations)(axes, here, styles)
                title = f"{model}, {group_title(group, groups).removeprefix('workload ')}"
                title_panel(axes, title, len(groups))
    for column in grid.T:
        for axes in [axes for axes in column if axes.get_visible()][-1:]:
            axes.set_xlabel("round, block after block" if in_blocks else "iteration")
            axes.tick_params(labelbottom=True)  # with a shared axis only the last line has labels
    figure.supylabel("output tok/s", fontsize=15)
    return figure


def _stretch(row: Row, launch: LaunchMeasures) -> tuple[int, str]:
    """Return the index and block that a launch shares with the launches it was interleaved with."""
    return launch.launch, launch.block or row.experiment.place


def _have_blocks_in_common(rows: Sequence[Row]) -> bool:
    return max(Counter(_stretch(row, launch) for row in rows for launch in row.used).values(), default=0) > 1


def _notes_on_blocks(rows: Sequence[Row]) -> list[str]:
    alone = any(launch.block is None for row in rows for launch in row.used)
    of_rounds = any("rounds" in row.comparison.ways for row in rows)
    return [
        "Line: one engine in one block. Passes above one another are of the same round"
        + (": what moves all lines alike is in no ratio." if of_rounds else "."),
        "Dashed: the next block, or a launch outside of blocks." if alone else "Dashed: the next block.",
    ]


def _draw_iterations(axes: Axes, rows: Sequence[Row], styles: dict[str, QuantStyle]) -> None:
    launches = [(row, launch) for row in rows for launch in row.used]
    warmups = max(len(launch.warmup_output_tokens_per_s) for _, launch in launches)
    if warmups:
        axes.axvspan(-0.5, warmups - 0.5, color="#eeeeee", zorder=0)
    for row, launch in launches:
        style = styles[row.label]
        warm, measured = launch.warmup_output_tokens_per_s, launch.iteration_output_tokens_per_s
        both = (*warm, *measured)
        axes.plot(range(len(both)), both, color=style.colour, linewidth=1.3, alpha=0.7)
        axes.plot(range(len(warm)), warm, style.marker, color=style.colour, markersize=6, mfc="white")
        axes.plot(range(len(warm), len(both)), measured, style.marker, color=style.colour, markersize=5)
    longest = max(
        len(launch.warmup_output_tokens_per_s) + len(launch.iteration_output_tokens_per_s) for _, launch in launches
    )
    axes.set_xlim(-0.5, max(axes.get_xlim()[1] if longest == 0 else longest - 0.5, 0.5))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(thousands())
    axes.margins(y=0.12)


def _draw_blocks(axes: Axes, rows: Sequence[Row], styles: dict[str, QuantStyle]) -> None:
    """Draw a section of the axis for each block, in the order of launches: its warm-up, then one position per round."""
    launches = [(row, launch) for row in rows for launch in row.used]
    stretches = sorted(dict.fromkeys(_stretch(*each) for each in launches), key=lambda each: each[0])
    end, ticks = 0, []
    for stretch in stretches:
        block = [each for each in launches if _stretch(*each) == stretch]
        warmups = max(len(launch.warmup_output_tokens_per_s) for _, launch in block)
        begin = end + warmups
        if end:
            axes.axvline(end - 0.5, color=QUIET, linestyle="--", linewidth=1)
        if warmups:
            axes.axvspan(end - 0.5, begin - 0.5, color="#eeeeee", zorder=0)
        for row, launch in block:
            style, warm = styles[row.label], launch.warmup_output_tokens_per_s
            rounds = [place if one.round is None else one.round for place, one in enumerate(launch.passes)]
            before = range(begin - len(warm), begin)
            places, both = [*before, *(begin + one for one in rounds)], (*warm, *launch.iteration_output_tokens_per_s)
            axes.plot(places, both, color=style.colour, linewidth=1.3, alpha=0.7)
            axes.plot(before, warm, style.marker, color=style.colour, markersize=6, mfc="white")
            axes.plot(places[len(warm) :], both[len(warm) :], style.marker, color=style.colour, markersize=4)
            end = max(end, begin + max(rounds) + 1)
        ticks += [(begin, "0"), (end - 1, f"{end - 1 - begin}")] if end - begin > 1 else [(begin, "0")]
    axes.set_xlim(-0.5, end - 0.5)
    few = ticks if len(ticks) <= MAX_TICKS else []
    axes.set_xticks([place for place, _ in few], [label for _, label in few])
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(thousands())
    axes.margins(y=0.12)


BEYOND = 1.0
"""Limit of the axis for intervals: on each side, as much again as the span of the pairs and 1."""


_IN_PAIRS = "Diamond: geometric mean of the ratios in {} of launches with the same index. Circle: one such pair."
_IN_BLOCKS = "Diamond: geometric mean over blocks of the typical ratio of {} in a round. Circle: one block."
_OF_PASSES = (
    "Diamond: geometric mean of the ratios of typical {} of launches with the same index. Circle: one such pair."
)


@dataclass(frozen=True)
class SpeedupAxis:
    """The axis of all panels, from `low` to `high`; intervals are cut at `first` and `last`."""

    low: float
    first: float
    last: float
    high: float


LABELS = 0.55
"""Maximum share of a panel for labels beside it, before their type becomes smaller."""


def speedup_figure(
    rows: Sequence[Row], baseline: Mapping[str, str], settings: ComparisonSettings, where: str, alarm: str
) -> Figure:
    """Draw the speed-ups of `rows` over `baseline` (axis -> value), or the reason why there are none.

    Each panel shows the metric with most speed-ups: if requests arrive at a rate, throughput has none.
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
    styles = quant_styles(rows)
    shown = [row for row in rows if not row.comparison.is_baseline]
    shown = _of_groups_with(shown, lambda row: row.comparison.speedup is not None)
    frame = frame_of(shown)
    limits = _limits([row.comparison for row in compared])
    figure = new_figure(title, [*_notes(compared, settings, limits, metrics), swept, frame.left_out, where], alarm)
    labels = {row.experiment.place: _label(row.comparison, settings) for row in shown}
    size = text_size(frame)
    widest = max(width_of(label, size) for label in labels.values())
    size *= min(1.0, LABELS * 0.8 * WIDTH / len(frame.panels) / widest)
    for axes, group in zip(draw_frame(figure, frame), frame.panels, strict=True):
        axes.set_xlim(limits.low, limits.high)
        axes.axvline(1, color=INK, linewidth=1.5, zorder=1)
        for row in (row for row in shown if group_of(row) == group):
            y = frame.heights.get((row.experiment.model, row.label))
            if y is None:
                continue
            known = row.comparison.speedup is not None
            if known:
                _draw_speedup(axes, row.comparison, y, styles[row.label], text_size(frame), limits)
            axes.annotate(
                labels[row.experiment.place], (1, y), (8, 0), xycoords=axes.get_yaxis_transform(),
                textcoords="offset points", va="center", color=INK if known else QUIET, fontsize=size,
            )  # fmt: skip
        label = f"{METRICS[metrics[group]].speedup} (x {name})"
        axes.set_xlabel("\n".join(wrapped(label, 0.75 * WIDTH / len(frame.panels), 15)))
        axes.xaxis.set_major_locator(MaxNLocator(max(4, 10 // len(frame.panels)), steps=[1, 2, 2.5, 5, 10]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
    return figure


def _metric(rows: Sequence[Row]) -> MetricName:
    return max(rows[0].comparisons, key=lambda m: sum(row.comparisons[m].speedup is not None for row in rows))


def _notes(
    compared: Sequence[Row], settings: ComparisonSettings, limits: SpeedupAxis, metrics: Mapping[Group, MetricName]
) -> list[str]:
    metric = ", ".join(dict.fromkeys(METRICS[metrics[group_of(row)]].header for row in compared))
    ways = {way for row in compared for way in row.comparison.ways}
    paired = _IN_BLOCKS if ways == {"rounds"} else _OF_PASSES if ways - {"launches"} else _IN_PAIRS
    notes = [
        f"{paired.format(metric)} Band: {plain_percent(settings.confidence)} confidence interval"
        ". ^ faster, v slower (held over the table); ~ inconclusive: the band says how large the difference may be; "
        "? too few pairs or no valid ones."
    ]
    if any(row.comparison.verdict == "irrelevant" for row in compared):
        notes.append(f"~ (real): found, but below {plain_percent(settings.relevant_difference)}.")
    if any(_is_cut(row.comparison, limits) for row in compared):
        notes.append("Arrow: the interval goes on beyond the axis; the summary has its ends.")
    if all(row.comparison.low is None for row in compared):
        notes.append("No interval: it takes two pairs of launches that differ.")
    return notes


def _label(comparison: Comparison, settings: ComparisonSettings) -> str:
    if comparison.speedup is None:
        return "no speed-up"
    # The full wording would be too wide for a narrow panel.
    if comparison.verdict == "irrelevant":
        text = f"{MARKS['irrelevant']} (real)"
    elif comparison.verdict == "undetected":
        text = f"{MARKS['undetected']} inconclusive"
    else:
        text = verdict_text(comparison, settings)
    return f"{ratio(comparison.speedup)}x {text}"


def _draw_speedup(
    axes: Axes, comparison: Comparison, y: float, style: QuantStyle, size: float, limits: SpeedupAxis
) -> None:
    assert comparison.speedup is not None
    if comparison.low is not None and comparison.high is not None:
        ends = max(comparison.low, limits.first), min(comparison.high, limits.last)
        axes.plot(ends, (y, y), color=style.colour, linewidth=6, alpha=0.5, solid_capstyle="butt")
        for end, marker, beyond in zip(ends, "<>", (comparison.low, comparison.high), strict=True):
            if end != beyond:
                axes.plot(end, y, marker=marker, markersize=0.9 * size, color=style.colour, zorder=5)
    pairs = list(comparison.pairs.values())
    look = {"facecolors": "white", "edgecolors": style.colour, "linewidths": 1.5, "zorder": 3}
    axes.scatter(pairs, [y - 0.3] * len(pairs), s=0.15 * size**2, **look)  # type: ignore[arg-type]
    axes.scatter(comparison.speedup, y, s=0.4 * size**2, marker="D", color=style.colour, edgecolors=INK, zorder=4)


def _is_cut(comparison: Comparison, limits: SpeedupAxis) -> bool:
    ends = comparison.low, comparison.high
    return any(end is not None and not limits.first <= end <= limits.last for end in ends)


def _limits(comparisons: Sequence[Comparison]) -> SpeedupAxis:
    speedups = [c.speedup for c in comparisons if c.speedup is not None]
    pairs = [1.0, *speedups, *(ratio for c in comparisons for ratio in c.pairs.values())]
    ends = [end for c in comparisons for end in (c.low, c.high) if end is not None]
    width = max(max(pairs) - min(pairs), 0.05)
    first = max(min([*pairs, *ends]), min(pairs) - BEYOND * width, 0.0)
    last = min(max([*pairs, *ends]), max(pairs) + BEYOND * width)
    margin = 0.05 * (last - first) or 0.05
    return SpeedupAxis(max(0.0, first - margin), first, last, last + margin)


def _why_none(rows: Sequence[Row], name: str) -> str:
    if not any(row.launches for row in rows):
        return "Nothing is measured yet."
    if all(row.comparison.is_baseline for row in rows):
        return f"Only {name} is selected: there is nothing to compare with it."
    reasons = dict.fromkeys(row.comparison.reason for row in rows if row.comparison.reason)
    return "No speed-up can be given: " + "; ".join(list(reasons)[:3]) + "."


REPLICAS_TITLE = "When replicas were done"

ACROSS, DOWN = 3, 2
"""Maximum number of panels on a slide, across and down."""

NAMED = 6
"""Maximum number of replicas in the legend; with more, all look the same."""


def replicas_figure(rows: Sequence[Row], where: str, alarm: str) -> Figure:
    """Draw each replica's end over the measured iterations, launch after launch: a panel per experiment."""
    found = replicated(rows)
    if not found:
        of_replicas = [row for row in rows if row.experiment.has_replicas]
        message = nothing(of_replicas, "No experiment has data_parallel_size above 1.")
        return message_figure(REPLICAS_TITLE, message, alarm=alarm)
    notes = ["Mark: one replica's last token, counted from the release of all. Line: waiting for the slowest."]
    if any(one.launches > 1 for one in found):
        notes.append("Dashed: another launch.")
    if len(found) > ACROSS * DOWN:
        notes.append(f"Not shown for want of room: {len(found) - ACROSS * DOWN} of {len(found)} experiments.")
    shown = found[: ACROSS * DOWN]
    figure = new_figure(REPLICAS_TITLE, [*notes, where], alarm)
    columns = min(len(shown), ACROSS)
    grid = figure.subplots(-(-len(shown) // columns), columns, squeeze=False)
    most = max(len(one.each) for one in shown)
    styles = label_styles(f"replica {number}" for number in range(min(most, NAMED)))
    if most <= NAMED:
        legend(figure, styles)
    for axes, one in zip(grid.flat, shown, strict=False):
        _draw_replicas(axes, one, list(styles.values()) if most <= NAMED else [])
        row = one.row
        name = f"{row.experiment.model}, {row.label}, {row.experiment.workload}"
        title_panel(axes, name, columns)
    for axes in list(grid.flat)[len(shown) :]:
        axes.set_axis_off()
    for axes in grid[-1]:
        axes.set_xlabel("measured iteration")
    for axes in grid[:, 0]:
        axes.set_ylabel("s after the release")
    return figure


def _draw_replicas(axes: Axes, one: Replicated, styles: Sequence[QuantStyle]) -> None:
    place = 0
    for launch, ends_s in enumerate(one.ends_s):
        if launch:
            axes.axvline(place - 0.5, color=QUIET, linestyle="--", linewidth=1)
        for ends in ends_s:
            axes.vlines(place, min(ends), max(ends), color="#bbbbbb", linewidth=5, zorder=1)
            for replica, end in enumerate(ends):
                style = styles[replica] if styles else QuantStyle("#0072B2", "o")
                axes.plot(place, end, style.marker, color=style.colour, markersize=7, zorder=2)
            place += 1
    axes.set_xlim(-0.5, place - 0.5)
    axes.set_ylim(0, 1.08 * max(end for ends_s in one.ends_s for ends in ends_s for end in ends))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
    axes.xaxis.grid(False)
