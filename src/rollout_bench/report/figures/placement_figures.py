"""The figure of placements: activities and idle share of each device in a typical step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from rollout_bench.analysis.cycles.placed_costs import typical_step
from rollout_bench.analysis.timed.rows import Row
from rollout_bench.contracts.modes import PLACEMENT
from rollout_bench.contracts.placed_steps import Activity, PlacedStep, RankStep
from rollout_bench.core.numbers import number
from rollout_bench.report.figures.style import (
    INK,
    QUIET,
    WIDTH,
    message_figure,
    new_figure,
    nothing,
    shorten,
    thousands,
)

PLACEMENT_TITLE = "What each device does in a step"

COLOURS: Mapping[str, str] = {
    "generate": "#0072B2",
    "gather": "#CC79A7",
    "train": "#E69F00",
    "reduce, optimize": "#D55E00",
    "update, reset": "#009E73",
    "sleep, wake": "#56B4E9",
}
"""Pieces of a lane, in Okabe and Ito's palette (2008); white is waiting."""

MOST_PANELS, MOST_LANES = 6, 24
"""Maximum number of configurations on a slide, and of devices over all of them."""


def piece_of(activity: Activity) -> str:
    """Return the key of an activity in `COLOURS`."""
    return next(name for name in COLOURS if activity in name.split(", "))


def placement_figure(rows: Sequence[Row], where: str, alarm: str) -> Figure:
    """Draw a typical step of each placement over one time axis: a panel per configuration, a lane per device.

    The typical step is the one with the median time of all valid launches.
    """
    rows = [row for row in rows if row.experiment.mode == PLACEMENT.name]
    found = [(row, step) for row in rows if (step := typical_step(row)) is not None]
    if not found:
        return message_figure(PLACEMENT_TITLE, nothing(rows, "No step is measured yet."), alarm=alarm)
    shown = _fitting(found)
    notes = [
        "The measured step with the median time of all valid launches. White: the device waits; for which share of the "
        "step stands beside its lane.",
        f"Not shown for want of room: {len(found) - len(shown)} of {len(found)}." if len(shown) < len(found) else "",
        where,
    ]
    figure = new_figure(PLACEMENT_TITLE, notes, alarm)
    there = {piece_of(span.activity) for _, step in shown for rank in step.ranks for span in rank.spans}
    figure.legend(
        handles=[Patch(facecolor=COLOURS[name], label=name) for name in COLOURS if name in there],
        loc="outside upper right", ncols=min(3, len(there)), frameon=False, fontsize=12,
    )  # fmt: skip
    heights = [len(step.ranks) for _, step in shown]
    (grid,) = figure.subplots(len(shown), 1, squeeze=False, sharex=True, height_ratios=heights).T
    longest = max(step.elapsed_s for _, step in shown)
    names = {(row.experiment.model, row.experiment.workload) for row, _ in shown}
    size = min(14.0, 150 / sum(heights) + 6)
    for axes, (row, step) in zip(grid, shown, strict=True):
        for rank in step.ranks:
            _draw(axes, rank, step, size)
        axes.set_ylim(len(step.ranks) - 0.4, -0.6)
        axes.set_yticks(range(len(step.ranks)), [f"device {rank.rank}" for rank in step.ranks], fontsize=size)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)
        axes.axvline(step.elapsed_s, color=QUIET, linestyle="--", linewidth=1)
        name = [row.experiment.model, row.experiment.workload] if len(names) > 1 else []
        title = f"{' '.join([*name, row.label])}: {number(step.elapsed_s, 3)} s"
        axes.set_title(shorten(title, 0.8 * WIDTH, size), loc="left", fontsize=size)
    grid[-1].set_xlim(0, 1.12 * longest)
    grid[-1].set_xlabel("s after the step began")
    grid[-1].xaxis.set_major_locator(MaxNLocator(10))
    grid[-1].xaxis.set_major_formatter(thousands())
    return figure


def _draw(axes: Axes, rank: RankStep, step: PlacedStep, size: float) -> None:
    for span in rank.spans:
        axes.broken_barh(
            [(span.began_s, span.elapsed_s)], (rank.rank - 0.36, 0.72), facecolors=COLOURS[piece_of(span.activity)],
            linewidth=0,
        )  # fmt: skip
    idle = round(1 - rank.busy_s() / step.elapsed_s, 9) + 0.0
    axes.annotate(
        f"waits {number(100 * idle, 2)} %", (step.elapsed_s, rank.rank), (4, 0), textcoords="offset points",
        va="center", fontsize=size, color=INK,
    )  # fmt: skip


def _fitting(found: Sequence[tuple[Row, PlacedStep]]) -> list[tuple[Row, PlacedStep]]:
    """Return the first elements of `found` that fit on the slide, at least one."""
    shown: list[tuple[Row, PlacedStep]] = []
    for row, step in found[:MOST_PANELS]:
        if shown and sum(len(each.ranks) for _, each in shown) + len(step.ranks) > MOST_LANES:
            break
        shown.append((row, step))
    return shown
