"""The figure of cycles: the time of a step, split into generation and each part of the transition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from rollout_bench.analysis.cycles.step_costs import StepCosts, step_costs
from rollout_bench.analysis.timed.rows import Row
from rollout_bench.contracts.cycles import PartName
from rollout_bench.contracts.modes import CYCLE
from rollout_bench.core.numbers import number
from rollout_bench.report.figures.style import (
    INK,
    QUIET,
    Frame,
    draw_frame,
    frame_of,
    group_of,
    message_figure,
    new_figure,
    nothing,
    text_size,
    thousands,
)

CYCLE_TITLE = "What a step costs"

GENERATION, TRANSFER, QUANTIZE, LOAD = "generation", "update: transfer", "update: quantize", "update: load"

COLOURS = {
    GENERATION: "#D0D0D0",
    "drain, pause": "#CC79A7",
    "sleep": "#000000",
    "wake, resume": "#56B4E9",
    TRANSFER: "#E69F00",
    QUANTIZE: "#D55E00",
    LOAD: "#0072B2",
    "reset prefix cache": "#009E73",
}
"""Pieces of a bar, from left to right: generation in grey, the transition in Okabe and Ito's palette (2008)."""

OF_PARTS: Mapping[str, tuple[PartName, ...]] = {
    "drain, pause": ("drain", "pause"),
    "sleep": ("sleep",),
    "wake, resume": ("wake_weights", "wake_kv_cache", "resume"),
    "reset prefix cache": ("reset_prefix_cache",),
}
"""Piece of a bar -> the parts of a transition that it sums up."""


def cycle_figure(rows: Sequence[Row], where: str, alarm: str) -> Figure:
    """Draw the seconds of a step: a bar for each quantization and setting, a point for each launch's whole step."""
    rows = [row for row in rows if row.experiment.mode == CYCLE.name]
    costs = {row.experiment.place: found for row in rows if (found := step_costs(row)) is not None}
    if not costs:
        return message_figure(CYCLE_TITLE, nothing(rows, "No transition is measured yet."), alarm=alarm)
    groups = {group_of(row) for row in rows if row.experiment.place in costs}
    rows = [row for row in rows if group_of(row) in groups]
    frame = frame_of(rows)
    notes = [
        "Bar: means over measured iterations, then over valid launches. Point: the whole step of one launch.",
        frame.left_out,
        where,
    ]
    figure = new_figure(CYCLE_TITLE, notes, alarm)
    named = [name for name in COLOURS if any(name in found for found in map(pieces, costs.values()))]
    figure.legend(
        handles=[Patch(facecolor=COLOURS[name], label=name) for name in named],
        loc="outside upper right", ncols=min(4, len(named)), frameon=False, fontsize=12,
    )  # fmt: skip
    for axes, group in zip(draw_frame(figure, frame), frame.panels, strict=True):
        shown = [row for row in rows if group_of(row) == group]
        there = [launch for row in shown if (one := costs.get(row.experiment.place)) for launch in one.launches]
        axes.set_xlim(0, (1.08 + 0.06 * len(frame.panels)) * max(launch.whole_s for launch in there))
        for row in shown:
            y = frame.heights.get((row.experiment.model, row.label))
            if y is not None:
                _draw(axes, frame, row, y, costs.get(row.experiment.place))
        axes.set_xlabel("s of a step")
        axes.xaxis.set_major_locator(MaxNLocator(max(4, 10 // len(frame.panels))))
        axes.xaxis.set_major_formatter(thousands())
    return figure


def pieces(costs: StepCosts) -> dict[str, float]:
    """Return the seconds of each nonzero piece of a bar, by its name, from left to right."""
    update = costs.update
    found = {
        GENERATION: costs.generation_s,
        TRANSFER: update.transfer_s or 0.0,
        QUANTIZE: update.quantize_s or 0.0,
        LOAD: update.load_s,
    } | {name: sum(costs.parts.get(part, 0.0) for part in parts) for name, parts in OF_PARTS.items()}
    return {name: found[name] for name in COLOURS if found[name]}


def _draw(axes: Axes, frame: Frame, row: Row, y: float, costs: StepCosts | None) -> None:
    size = text_size(frame)
    if costs is None:
        unmeasured = "failed" if row.experiment.failures else "not measured"
        text = "no valid launch" if row.launches else unmeasured
        axes.annotate(text, (0, y), (6, 0), textcoords="offset points", va="center", color=QUIET, fontsize=size)
        return
    left = 0.0
    for name, seconds in pieces(costs).items():
        axes.barh(y, seconds, left=left, height=0.78, color=COLOURS[name])
        left += seconds
    for place, launch in enumerate(costs.launches):
        # Launches are staggered, so that equal ones remain visible.
        height = y + 0.5 * (0.5 - (place + 0.5) / len(costs.launches))
        axes.scatter(launch.whole_s, height, s=0.17 * size**2, color=INK, edgecolors="white", linewidths=0.8, zorder=3)
    end = max(left, *(each.whole_s for each in costs.launches))
    axes.annotate(
        number(costs.whole_s, 3), (end, y), (8, 0), textcoords="offset points", va="center", fontsize=size, color=INK
    )
