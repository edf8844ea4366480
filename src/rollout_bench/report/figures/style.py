"""Shared style of all figures: size, colours, title, note, and panels with one line per model and quantization."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.textpath import text_to_path
from matplotlib.ticker import FuncFormatter

from rollout_bench.analysis.timed.rows import Row
from rollout_bench.core.numbers import number

SIZE_IN = (13.333, 7.5)
"""Width and height of a 16:9 slide, in inches."""

WIDTH = 72 * SIZE_IN[0]
"""Width of the slide in points, the unit of text sizes."""

RC: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 15,
    "axes.titlesize": 16,
    "axes.labelsize": 15,
    "xtick.labelsize": 13,
    "ytick.labelsize": 14,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "svg.hashsalt": "rollout-bench",
    "svg.fonttype": "path",
    "text.hinting": "none",
}
"""Settings of matplotlib; fixed, so that a user's settings do not change figures. Unhinted text has the same width at
every resolution and in an SVG, so text that is measured to fit does fit.
"""

TITLE_SIZE = 22
"""Size of a figure's title in points."""

INK = "#222222"
QUIET = "#666666"
ALARM = "#a03000"

_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
"""Okabe and Ito's colour-blind safe palette (2008), without yellow, which vanishes on white."""

_MARKERS = "osD^vP*X"

ROOM = 1.04
"""Factor by which an axis from zero extends beyond the data. matplotlib's margin is a share of the points' span, which
may be less than half a marker.
"""

HALO = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none"}
"""Background of text that a grid line may cross."""


@dataclass(frozen=True)
class QuantStyle:
    """Style of a quantization in every figure; the marker keeps it distinct in greyscale."""

    colour: str
    marker: str


def quant_styles(rows: Sequence[Row]) -> dict[str, QuantStyle]:
    """Return a style for each quantization label, by its order in `rows`."""
    return label_styles(row.label for row in rows)


def label_styles(labels: Iterable[str]) -> dict[str, QuantStyle]:
    """Return a style for each of `labels`, by their order. Colours repeat after seven, markers after eight."""
    return {
        label: QuantStyle(_COLOURS[place % len(_COLOURS)], _MARKERS[place % len(_MARKERS)])
        for place, label in enumerate(dict.fromkeys(labels))
    }


def new_figure(title: str, notes: Sequence[str], alarm: str = "") -> Figure:
    """Return an empty figure with its title above, and `alarm` and `notes` in small type below."""
    figure = Figure(figsize=SIZE_IN, layout="constrained")
    FigureCanvasAgg(figure)
    title = shorten(title, 0.98 * WIDTH, TITLE_SIZE, "bold")
    figure.text(0.01, 0.98, title, fontsize=TITLE_SIZE, fontweight="bold", ha="left", va="top", color=INK)
    warnings, rest = (wrapped(text, 0.98 * WIDTH, 12) for text in (alarm, " ".join(filter(None, notes))))
    lines = warnings + rest
    bottom = 0.01 + 0.034 * len(lines)
    figure.get_layout_engine().set(rect=(0.005, bottom, 0.985, 0.92 - bottom))  # type: ignore[union-attr, call-arg]
    for place, line in enumerate(reversed(lines)):
        colour = ALARM if place >= len(rest) else QUIET
        figure.text(0.01, 0.012 + 0.034 * place, line, fontsize=12, color=colour)
    return figure


def message_figure(title: str, message: str, notes: Sequence[str] = (), alarm: str = "") -> Figure:
    """Return a figure without data that shows the reason."""
    figure = new_figure(title, notes, alarm)
    text = "\n".join(wrapped(message, 0.8 * WIDTH, 20))
    figure.text(0.5, 0.52, text, fontsize=20, color=QUIET, ha="center", va="center")
    return figure


def has_panels(svg: bytes) -> bool:
    """Return whether a saved SVG figure shows data: a `message_figure` has no axes."""
    return b'<g id="axes_' in svg


def nothing(rows: Sequence[Row], otherwise: str) -> str:
    """Return the message of an empty figure of `rows`.

    It is "No launch is valid." if some were measured but none is valid, else `otherwise`.
    """
    return (
        "No launch is valid." if any(row.launches for row in rows) and not any(row.used for row in rows) else otherwise
    )


def legend(figure: Figure, styles: dict[str, QuantStyle]) -> None:
    """Draw the figure's legend beside its title if it fits there, else beside the panels.

    A legend beside the panels shortens the room for their titles, so call it before `title_panel`.
    """
    room = 0.97 * WIDTH - width_of(figure.texts[0].get_text(), TITLE_SIZE, "bold")
    if sum(width_of(label, 15) + 75 for label in styles) > room:  # a line, its marker and the spaces need 72
        legend_beside(figure, keys(styles, 0.25 * WIDTH, 12))
        return
    handles = keys(styles, room, 15)
    figure.legend(handles=handles, loc="upper right", ncols=len(styles), frameon=False).set_in_layout(False)


def legend_beside(figure: Figure, handles: Sequence[Line2D]) -> None:
    """Draw a legend of at most `MAX_LINES` entries beside the panels, with the number of the others."""
    more = Line2D([], [], linestyle="none", label=f"and {len(handles) - MAX_LINES} more")
    shown = handles if len(handles) <= MAX_LINES else [*handles[:MAX_LINES], more]
    figure.legend(handles=shown, loc="outside right center", frameon=False, fontsize=min(12.0, 240 / len(shown)))


def keys(styles: dict[str, QuantStyle], room: float, size: float) -> list[Line2D]:
    """Return the entries of a legend, with labels shortened to `room` points in type of `size` points."""
    return [
        Line2D(
            [], [], color=style.colour, marker=style.marker, linewidth=2, markersize=8, label=shorten(label, room, size)
        )
        for label, style in styles.items()
    ]


def thousands() -> FuncFormatter:
    """Return a formatter of tick labels with thousands separators and at least three significant digits."""
    return FuncFormatter(
        lambda value, _: number(float(value), 3).rstrip("0").rstrip(".") if value % 1 else f"{value:,.0f}"
    )


def width_of(text: str, size: float, weight: str = "normal") -> float:
    """Return the width of one line of `text` in type of `size`, both in points; it is the same in every format."""
    font = FontProperties(family=RC["font.family"], size=size, weight=weight)
    return float(text_to_path.get_text_width_height_descent(text, font, ismath=False)[0])


def shorten(text: str, room: float, size: float, weight: str = "normal") -> str:
    """Return `text`, with its middle replaced if it is wider than `room` points: both ends of a name matter most."""
    short, characters = text, len(text)
    while width_of(short, size, weight) > room and characters > 3:
        characters -= 1
        head = (characters - 1) * 2 // 3
        short = f"{text[:head]}…{text[len(text) - (characters - 1 - head) :]}"
    return short


def wrapped(text: str, room: float, size: float) -> list[str]:
    """Return the lines of `text`, none wider than `room` points except for single words."""
    lines: list[str] = []
    for word in text.split():
        if lines and width_of(f"{lines[-1]} {word}", size) <= room:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def title_panel(axes: Axes, title: str, across: int) -> None:
    """Write `title` above one of `across` panels side by side, shortened to the available room."""
    figure = axes.get_figure(root=True)
    assert figure is not None, "new_figure made it"
    beside = sum(key.get_window_extent().width for key in figure.legends if key.get_in_layout()) * 72 / figure.dpi
    shared = len(axes.get_shared_y_axes().get_siblings(axes)) > 1
    left = 150 / across + 10 if shared else 75  # tick labels; of shared ones only the first panel's
    room = (WIDTH - beside) / across - left
    axes.set_title(shorten(title, room, 14), loc="left", fontsize=14)


def image(figure: Figure) -> bytes:
    """Return `figure` as SVG, without date and version."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


@contextmanager
def settings() -> Iterator[None]:
    """Return the context in which figures are made and saved: matplotlib's defaults, then `RC`."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(RC)
        yield


MAX_PANELS = 4
MAX_LINES = 24
"""Maximum number of lines on a slide; a note gives the number of the others."""

MIN_HEIGHT = 7.0
"""Fewer lines are centred and not stretched to fill the slide."""

TOP = 0.5
"""The y position above the first heading."""

Group = tuple[str, str, str]
"""Mode, platform and workload: the key of a panel."""


@dataclass(frozen=True)
class Frame:
    """Layout of the rows: `panels` from left to right, `lines` (model, quantization label) from top to bottom.

    `heights` are the y positions of the lines, and `headings` those of the models above them; one line is one unit
    high. `left_out` is a note on parts that do not fit; empty if everything fits.
    """

    panels: tuple[Group, ...]
    heights: dict[tuple[str, str], float]
    headings: dict[str, float]
    left_out: str

    @property
    def height(self) -> float:
        """Height from above the first heading to below the last line."""
        return TOP - min(self.heights.values()) + 0.6


def frame_of(rows: Sequence[Row]) -> Frame:
    """Lay out `rows` (at least one) in their order."""
    panels = tuple(dict.fromkeys(map(group_of, rows)))
    lines = dict.fromkeys((row.experiment.model, row.label) for row in rows)
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
    """Return the panel of `row`."""
    return row.experiment.mode, row.experiment.platform, row.experiment.workload


def heaviest(rows: Sequence[Row]) -> tuple[list[Row], str]:
    """Return `rows` with only the last load of each sweep, since each load would need a panel; and a note about it."""
    last: dict[str, Row] = {}
    for row in rows:
        part = row.experiment.part
        name = row.experiment.whole.place
        if part and (name not in last or part.number > (last[name].experiment.part or part).number):
            last[name] = row
    shown = [row for row in rows if row.experiment.part is None or row is last[row.experiment.whole.place]]
    return shown, "Of a sweep its heaviest load." if len(shown) < len(rows) else ""


def group_title(group: Group, groups: Sequence[Group]) -> str:
    """Return the workload, with mode and platform if the figure shows several of them."""
    parts = [f"workload {group[2]}" if len(groups) < MAX_PANELS - 1 else group[2]]
    parts += [group[axis] for axis in (0, 1) if len({other[axis] for other in groups}) > 1]
    return ", ".join(parts)


def draw_frame(figure: Figure, frame: Frame) -> list[Axes]:
    """Return the axes of the panels, side by side, with a tick per line and the models' names above their lines."""
    across = len(frame.panels)
    grid = figure.subplots(1, across, sharey=True, squeeze=False)[0]
    spare = max(0.0, MIN_HEIGHT - frame.height) / 2
    size = min(15.0, 330 / max(frame.height, MIN_HEIGHT))
    labels = [shorten(label, 0.8 * WIDTH / (1 + across), size) for _, label in frame.heights]
    panel = (0.94 * WIDTH - max(width_of(label, size) for label in labels)) / across
    for place, (axes, group) in enumerate(zip(grid, frame.panels, strict=True)):
        axes.set_ylim(TOP - frame.height - spare, TOP + spare)
        axes.set_yticks(list(frame.heights.values()), labels)
        axes.tick_params(axis="y", length=0, labelsize=size, labelleft=place == 0)
        axes.grid(axis="y", visible=False)
        axes.set_title(shorten(group_title(group, frame.panels), panel, 16), loc="left", fontsize=16)
        if place == 0:
            for model, y in frame.headings.items():
                name = axes.annotate(
                    shorten(model, panel, size, "bold"), (0, y), xycoords=("axes fraction", "data"),
                    xytext=(4, 0), textcoords="offset points", va="center", fontsize=size, fontweight="bold",
                    color=INK, bbox=HALO,
                )  # fmt: skip
                name.set_in_layout(False)
    return list(grid)


def text_size(frame: Frame) -> float:
    """Return the size of the text beside a line, in points."""
    return min(14.0, 310 / max(frame.height, MIN_HEIGHT))
