"""The frame of figures with one line per model and quant, and one panel per workload."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rollout_bench.analysis.rows import Row
from rollout_bench.reporting.figures.style import HALO, INK, shorten

MAX_PANELS = 4
MAX_LINES = 24
"""More do not fit on a slide; the note says how many are left out."""

MIN_HEIGHT = 7.0
"""Fewer lines are centred, not blown up to fill the slide."""

TOP = 0.5
"""The y position above the first heading."""

Group = tuple[str, str, str]
"""Mode, platform and workload: what one panel shows."""


@dataclass(frozen=True)
class Frame:
    """Where each row goes: `panels` from left to right, `lines` (model, quant label) from top to bottom.

    `heights` are the lines' y positions and `headings` those of the models above them; one line is
    one unit high. `left_out` says in words what does not fit, empty if everything does.
    """

    panels: tuple[Group, ...]
    heights: dict[tuple[str, str], float]
    headings: dict[str, float]
    left_out: str

    @property
    def height(self) -> float:
        """From above the first heading to below the last line."""
        return TOP - min(self.heights.values()) + 0.6


def frame_of(rows: Sequence[Row]) -> Frame:
    """Lays out `rows` (at least one) in their order."""
    panels = tuple(dict.fromkeys(map(group_of, rows)))
    lines = dict.fromkeys((row.experiment.model, row.quant_label) for row in rows)
    models = list(dict.fromkeys(model for model, _ in lines))
    ordered = [line for model in models for line in lines if line[0] == model]
    heights: dict[tuple[str, str], float] = {}
    headings: dict[str, float] = {}
    y = 0.0
    for model, quant in ordered[:MAX_LINES]:
        if model not in headings:
            y -= 0.15
            headings[model] = y
            y -= 0.95
        heights[model, quant] = y
        y -= 1
    left_out = []
    if len(ordered) > MAX_LINES:
        left_out.append(f"{len(ordered) - MAX_LINES} of {len(ordered)} models and quants")
    if len(panels) > MAX_PANELS:
        left_out.append(f"{len(panels) - MAX_PANELS} of {len(panels)} workloads")
    text = f"Not shown for want of room: {' and '.join(left_out)}; select fewer." if left_out else ""
    return Frame(panels[:MAX_PANELS], heights, headings, text)


def group_of(row: Row) -> Group:
    """The panel that `row` belongs to."""
    return row.experiment.mode, row.experiment.platform, row.experiment.workload


def heaviest(rows: Sequence[Row]) -> tuple[list[Row], str]:
    """`rows` with the last load of each sweep alone, since each would take a panel; and a note that says so."""
    last: dict[str, Row] = {}
    for row in rows:
        part = row.experiment.part
        name = row.experiment.whole.place
        if part and (name not in last or part.number > (last[name].experiment.part or part).number):
            last[name] = row
    shown = [row for row in rows if row.experiment.part is None or row is last[row.experiment.whole.place]]
    return shown, "Of a sweep its heaviest load." if len(shown) < len(rows) else ""


def group_title(group: Group, groups: Sequence[Group]) -> str:
    """The workload; with mode and platform where the figure shows several of them."""
    parts = [f"workload {group[2]}" if len(groups) < MAX_PANELS - 1 else group[2]]
    parts += [group[axis] for axis in (0, 1) if len({other[axis] for other in groups}) > 1]
    return ", ".join(parts)


def draw_frame(figure: Figure, frame: Frame) -> list[Axes]:
    """The panels' axes, side by side, with a tick for each line and the models' names above their lines."""
    grid = figure.subplots(1, len(frame.panels), sharey=True, squeeze=False)[0]
    spare = max(0.0, MIN_HEIGHT - frame.height) / 2
    size = min(15.0, 330 / max(frame.height, MIN_HEIGHT))
    for place, (axes, group) in enumerate(zip(grid, frame.panels, strict=True)):
        axes.set_ylim(TOP - frame.height - spare, TOP + spare)
        axes.set_yticks(list(frame.heights.values()), [shorten(q, 18) for _, q in frame.heights])
        axes.tick_params(axis="y", length=0, labelsize=size, labelleft=place == 0)
        axes.grid(axis="y", visible=False)
        axes.set_title(shorten(group_title(group, frame.panels), 100 // len(frame.panels)), loc="left")
        if place == 0:
            for model, y in frame.headings.items():
                name = axes.annotate(
                    shorten(model, 100 // len(frame.panels)), (0, y), xycoords=("axes fraction", "data"),
                    xytext=(4, 0), textcoords="offset points", va="center", fontsize=size, fontweight="bold",
                    color=INK, bbox=HALO,
                )  # fmt: skip
                name.set_in_layout(False)
    return list(grid)


def text_size(frame: Frame) -> float:
    """Points of the text beside a line."""
    return min(14.0, 310 / max(frame.height, MIN_HEIGHT))
