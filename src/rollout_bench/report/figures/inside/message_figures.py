"""Figures of messages: bytes over the steps of a pass, and share of a decode step over the batch size."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullFormatter, NullLocator

from rollout_bench.analysis.inside.message_links import MessagesRun, sent_bytes
from rollout_bench.analysis.inside.message_shares import RunShares, run_shares
from rollout_bench.contracts.messages import Link
from rollout_bench.plan.config import ComparisonSettings
from rollout_bench.report.figures.style import (
    WIDTH,
    QuantStyle,
    keys,
    label_styles,
    legend,
    message_figure,
    new_figure,
    thousands,
    title_panel,
)

TITLE = "Bytes of messages"

LABELS: dict[Link, str] = {
    "front_end_to_core": "front end to core",
    "core_to_workers": "core to workers",
    "workers_to_core": "back to core",
    "core_to_front_end": "to front end",
}
"""Names of links that fit beside the title."""

MOST_PANELS = 6

MARKERS = 10
"""Maximum number of markers on a line, so that links with similar bytes remain visible."""

SHARES = "Share of a decode step"

MOST_LINES = 5
"""Maximum number of experiments whose names fit beside the title."""


def messages_figure(runs: Sequence[MessagesRun], where: str, alarm: str) -> Figure:
    """Draw the bytes of each link in each step at the largest batch size, a panel for each of `runs`."""
    if not runs:
        return message_figure(TITLE, "There is no valid launch of messages yet.", alarm=alarm)
    shown = runs[:MOST_PANELS]
    left = [f"Not shown for want of room: {len(runs) - len(shown)} of {len(runs)}."] if shown != runs else []
    figure = new_figure(TITLE, ["The first launch of each, at its largest batch.", *left, where], alarm)
    styles = label_styles(LABELS.values())
    legend(figure, styles)
    rows, columns = (1, len(shown)) if len(shown) <= 3 else (2, -(-len(shown) // 2))
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axes in grid.ravel()[len(shown) :]:
        axes.set_axis_off()
    for axes, run in zip(grid.ravel(), shown, strict=False):
        batch = run.batches[-1]
        steps = run.launches[0].steps("contents", batch)
        for place, link in enumerate(LABELS):
            sums = [
                (step.index, sum(sent_bytes(row) or 0 for row in messages if row.link == link))
                for step, messages in steps
            ]
            points = [(index, total) for index, total in sums if total]
            if not points:
                continue
            style = styles[LABELS[link]]
            stride = -(-len(points) // MARKERS)
            marked = {0, *range(place * stride // len(LABELS), len(points), stride)}
            axes.plot(
                *zip(*points, strict=True),
                color=style.colour,
                linestyle="--" if link == "core_to_front_end" else "-",  # nearly the same bytes as to workers
                linewidth=2,
                marker=style.marker,
                markersize=7,
                markevery=sorted(marked),
            )
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(thousands())
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("step")
        experiment = run.chosen.experiment
        title = f"{experiment.model} {run.chosen.label} {experiment.workload}, batch {batch}"
        title_panel(axes, title, columns)
    for line in grid:
        line[0].set_ylabel("bytes")
    return figure


def shares_figure(runs: Sequence[MessagesRun], where: str, alarm: str) -> Figure:
    """Draw the share of messages in a decode step over the batch size, a line for each of `runs`."""
    # the band shows the launches themselves, so the confidence does not matter
    found = run_shares(runs, ComparisonSettings().confidence)
    if not found:
        return message_figure(SHARES, "There is no valid launch of messages with decode steps yet.", alarm=alarm)
    shown = found[:MOST_LINES]
    left = [f"Not shown for want of room: {len(found) - len(shown)} of {len(found)}."] if shown != found else []
    notes = [
        "Lines: messages between core and workers, mean over launches. Bands: from the lowest launch to the highest. "
        "Dotted: messages of the front end, which a step does not wait for.",
        *left,
        where,
    ]
    figure = new_figure(SHARES, notes, alarm)
    axes = figure.subplots()
    labels = [_label(each, shown) for each in shown]
    styles = label_styles(labels)
    for label, each in zip(labels, shown, strict=True):
        _draw_shares(axes, each, styles[label])
    batches = sorted({step.batch for each in shown for step in each.steps})
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator([float(batch) for batch in batches]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(thousands())
    axes.set_xlabel("sequences at once")
    axes.set_ylabel("% of a decode step")
    # names of experiments are too long for the room beside the title: above the lines, two in a row
    axes.set_ylim(0, axes.get_ylim()[1] * (1 + 0.09 * -(-len(styles) // 2)))
    axes.legend(handles=keys(styles, 0.38 * WIDTH, 15), loc="upper right", ncols=2, frameon=False)
    return figure


def _draw_shares(axes: Axes, each: RunShares, style: QuantStyle) -> None:
    batches = [step.batch for step in each.steps]
    launches = [[100 * launch.engine for launch in step.launches.values()] for step in each.steps]
    axes.fill_between(batches, [min(v) for v in launches], [max(v) for v in launches], color=style.colour, alpha=0.18)
    means = [100 * step.estimated("engine").value for step in each.steps]
    axes.plot(batches, means, color=style.colour, marker=style.marker, markersize=9, linewidth=2)
    front_end = [100 * step.estimated("front_end").value for step in each.steps]
    axes.plot(batches, front_end, color=style.colour, marker=style.marker, markersize=5, linewidth=1.5, linestyle=":")


def _label(each: RunShares, all_of_them: Sequence[RunShares]) -> str:
    """Return the names of an experiment that differ among `all_of_them`, or its workload if none differs."""
    names = [_names(other) for other in all_of_them]
    differing = [name for place, name in enumerate(_names(each)) if len({other[place] for other in names}) > 1]
    return " ".join(differing) or each.run.chosen.experiment.workload


def _names(each: RunShares) -> tuple[str, ...]:
    experiment = each.run.chosen.experiment
    return experiment.platform, experiment.model, each.run.chosen.label, experiment.workload
