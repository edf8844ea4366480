"""Bytes of messages over the steps of a pass: what prefill sends, and what each decode step does."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from rollout_bench.analysis.inside.message_links import MessagesRun, sent_bytes
from rollout_bench.contracts.messages import Link
from rollout_bench.report.figures.style import label_styles, legend, message_figure, new_figure, shorten, thousands

TITLE = "Bytes of messages"

LABELS: dict[Link, str] = {
    "front_end_to_core": "front end to core",
    "core_to_workers": "core to workers",
    "workers_to_core": "back to core",
    "core_to_front_end": "to front end",
}
"""Links, in words that have room beside the title."""

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
    styles = label_styles(LABELS.values())
    rows, columns = (1, len(shown)) if len(shown) <= 3 else (2, -(-len(shown) // 2))
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axes in grid.ravel()[len(shown) :]:
        axes.set_axis_off()
    for axes, run in zip(grid.ravel(), shown, strict=False):
        batch = run.batches[-1]
        steps = run.launches[0].steps("contents", batch)
        for link in LABELS:
            sums = [
                (step.index, sum(sent_bytes(row) or 0 for row in messages if row.link == link))
                for step, messages in steps
            ]
            points = [(index, total) for index, total in sums if total]
            style = styles[LABELS[link]]
            axes.plot(*zip(*points, strict=True), color=style.colour, marker=style.marker, markersize=5, linewidth=1.5)
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(thousands())
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("step")
        experiment = run.chosen.experiment
        title = f"{experiment.model} {run.chosen.label} {experiment.workload}, batch {batch}"
        axes.set_title(shorten(title, 40), loc="left", fontsize=14)
    for line in grid:
        line[0].set_ylabel("bytes")
    legend(figure, styles)
    return figure
