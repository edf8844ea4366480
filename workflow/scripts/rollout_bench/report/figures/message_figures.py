"""Bytes of messages over the steps of a pass: what prefill sends, and what each decode step does."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rollout_bench.analysis.inside.message_links import LINKS, MessagesRun, sent_bytes
from rollout_bench.report.figures.style import label_styles, legend, message_figure, new_figure, shorten, thousands

TITLE = "Messages: bytes in each step"

MOST_PANELS = 6


def messages_figure(runs: Sequence[MessagesRun], where: str, alarm: str) -> Figure:
    """Draw the bytes that each link carries in each step at the largest batch, a panel for each of `runs`."""
    seen = [run for run in runs if any(row.content is not None for launch in run.launches for row in launch.rows)]
    if not seen:
        reason = "The contents of messages were not looked at." if runs else "There is no valid launch of messages yet."
        return message_figure(TITLE, reason, alarm=alarm)
    shown = seen[:MOST_PANELS]
    left = [f"Not shown for want of room: {len(seen) - len(shown)} of {len(seen)}."] if shown != seen else []
    figure = new_figure(TITLE, ["The first launch of each, at its largest batch.", *left, where], alarm)
    styles = label_styles(link.replace("_", " ") for link in LINKS)
    rows, columns = (1, len(shown)) if len(shown) <= 3 else (2, -(-len(shown) // 2))
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axes in grid.ravel()[len(shown) :]:
        axes.set_axis_off()
    for axes, run in zip(grid.ravel(), shown, strict=False):
        batch = run.batches[-1]
        steps = run.launches[0].steps("contents", batch)
        for link in LINKS:
            sums = [
                (step.index, sum(sent_bytes(row) or 0 for row in messages if row.link == link))
                for step, messages in steps
            ]
            points = [(index, total) for index, total in sums if total]
            style = styles[link.replace("_", " ")]
            axes.plot(*zip(*points, strict=True), color=style.colour, marker=style.marker, markersize=5, linewidth=1.5)
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(thousands())
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("step")
        experiment = run.chosen.experiment
        title = f"{experiment.model} {run.chosen.label} {experiment.workload}, batch {batch}"
        axes.set_title(shorten(title, 40), loc="left", fontsize=14)
    for line in grid:
        line[0].set_ylabel("bytes")
    legend(figure, styles)
    return figure
