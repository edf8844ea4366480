"""Two kinds of charts, of plain values: panels of rows (bars, intervals, parts of a time) and panels of lines.

A chart says its conclusion in the title, its content below it, and its marks and machine at the foot. It is as high as
its rows need, narrow enough to be read on a telephone, and has a dark style for pages in dark mode.
"""

import io
import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from rollout_bench.core.numbers import first_few, number
from rollout_bench.report.parts import SvgFigure

WIDTH_IN, SIZE, TITLE_SIZE = 5.4, 10.5, 15
"""Width of every chart in inches; sizes of its text and of its title in points."""

WIDTH = 72 * WIDTH_IN - 16
"""Width inside the margins, in points."""

ROW_IN, HEADING_IN, AXIS_IN, LINES_IN = 0.27, 0.36, 0.62, 2.5
"""Heights in inches of a row, of a panel's title, of its axis, and of a panel of lines."""

MOST_ROWS, MOST_PANELS = 40, 8

INK, QUIET, ALARM, PAGE, RULE = "#222222", "#666666", "#a03000", "#ffffff", "#dddddd"

DARK = {INK: "#e4e4e4", QUIET: "#a0a0a0", ALARM: "#ff9a5c", PAGE: "#16181b", RULE: "#3a3d42"}
"""Colour -> its replacement in dark mode; all other colours are visible on both pages."""

BASELINE = "#8a8a8a"

PALETTE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
"""Okabe and Ito's colour-blind safe palette (2008), without black and yellow, which vanish on one of the two pages."""

MARKERS = "osD^vP*X"
"""Markers of lines, in the order of the colours: they keep lines apart in greyscale."""

RC: Any = {
    "font.family": "DejaVu Sans", "font.size": SIZE, "axes.labelsize": SIZE, "xtick.labelsize": SIZE,
    "ytick.labelsize": SIZE, "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
    "axes.grid": True, "grid.color": RULE, "text.color": INK, "axes.labelcolor": INK, "xtick.color": INK,
    "ytick.color": INK, "axes.edgecolor": INK, "axes.facecolor": "none", "figure.facecolor": PAGE,
    "svg.hashsalt": "rollout-bench", "svg.fonttype": "path", "text.hinting": "none",
}  # fmt: skip
"""Settings of matplotlib; fixed, so that a user's settings do not change figures. Unhinted text has the same width at
every resolution and in an SVG, so text that is measured to fit does fit.
"""


@dataclass(frozen=True)
class Bar:
    """A row of a panel; its numbers are in the unit of the panel's axis.

    Attributes:
        label: name at the left.
        heading: name of a group of rows, above its first row; empty if all rows are of one group.
        value: length of the bar, or place of the diamond in a panel with a `middle`.
        span: ends of the interval.
        points: values of single launches or pairs.
        crosses: values of invalid launches.
        parts: name of the part, its beginning and its length; in place of a bar.
        mark: place of a dashed mark.
        text: at the right.
        colour: of bar, diamond and interval.
    """

    label: str
    heading: str = ""
    value: float | None = None
    span: tuple[float, float] | None = None
    points: Sequence[float] = ()
    crosses: Sequence[float] = ()
    parts: Sequence[tuple[str, float, float]] = ()
    mark: float | None = None
    text: str = ""
    colour: str = PALETTE[0]


@dataclass(frozen=True)
class Rows:
    """A panel of rows over `axis`; with a `middle`, values are diamonds instead of bars from zero.

    Without `limits`, the axis leads from zero to the largest value that counts.
    """

    title: str
    axis: str
    bars: Sequence[Bar]
    limits: tuple[float, float] | None = None
    middle: float | None = None

    @property
    def ends(self) -> tuple[float, float]:
        """Both ends of the axis."""
        marks = [mark for bar in self.bars for mark in (bar.value, bar.mark, *bar.points, *(bar.span or ())) if mark]
        parts = [begin + length for bar in self.bars for _, begin, length in bar.parts]
        return self.limits or (0, 1.06 * max([*marks, *parts], default=0) or 1)

    @property
    def names(self) -> set[str]:
        """Names of all parts."""
        return {name for bar in self.bars for name, _, _ in bar.parts}


@dataclass(frozen=True)
class Line:
    """A line of a panel, through `points` (x, y).

    Attributes:
        band: x with the low and the high end of an interval.
        circles: points of single launches.
        hollow: points of the line that do not count.
    """

    label: str
    points: Sequence[tuple[float, float]]
    band: Sequence[tuple[float, float, float]] = ()
    circles: Sequence[tuple[float, float]] = ()
    hollow: Sequence[tuple[float, float]] = ()


@dataclass(frozen=True)
class Lines:
    """A panel of lines.

    `ticks` are the places of ticks, `log` the axes ("x", "y") with a logarithmic scale, and `limit` a value of y that
    gets a line of its own.
    """

    title: str
    x: str
    y: str
    lines: Sequence[Line]
    ticks: Sequence[float] = ()
    log: str = ""
    from_zero: bool = True
    limit: float | None = None

    @property
    def names(self) -> set[str]:
        """Names of all lines."""
        return {line.label for line in self.lines}


@dataclass(frozen=True)
class Chart:
    """A figure: `title` is its conclusion, `content` names the measured things, `marks` explains what is drawn.

    `keys` has the colour of each part or line by its name; parts without an entry have their bar's colour.
    """

    title: str
    content: str
    marks: str
    panels: Sequence[Rows | Lines]
    keys: Mapping[str, str]


def colours_of(labels: Iterable[str], baseline: Iterable[str] = ()) -> dict[str, str]:
    """Return a colour for each of `labels`, by their order: grey for those of the `baseline`."""
    found = dict.fromkeys(baseline, BASELINE)
    for label in dict.fromkeys(labels):
        found.setdefault(label, PALETTE[sum(colour != BASELINE for colour in found.values()) % len(PALETTE)])
    return found


MARGIN = 6.0
"""Distance of texts from the edges, in points."""

Head = list[tuple[str, float, str, str]]
"""Lines of text: text, size in points, weight, colour."""


def _head(chart: Chart, alarm: str) -> Head:
    lines = (
        (chart.title, TITLE_SIZE, "bold", INK),
        (chart.content, SIZE, "normal", QUIET),
        (alarm, SIZE, "normal", ALARM),
    )
    return [
        (line, size, weight, colour)
        for text, size, weight, colour in lines
        for line in wrapped(text, WIDTH, size, weight)
    ]


def _below(chart: Chart, where: str) -> str:
    return " ".join(filter(None, (chart.marks, _fitting(chart.panels)[1], where)))


def svg_figure(chart: Chart, alarm: str = "", where: str = "") -> SvgFigure:
    """Return the figure of `draw` as SVG, with its texts."""
    below = _below(chart, where)
    lines = len(wrapped(below, WIDTH, SIZE))
    margins = MARGIN + sum(1.35 * size for _, size, _, _ in _head(chart, alarm)), MARGIN + 1.35 * SIZE * lines
    return SvgFigure(image(draw(chart, alarm, where)), (chart.content, alarm), below, margins)


def draw(chart: Chart, alarm: str = "", where: str = "") -> Figure:
    """Draw `chart`, with an `alarm` above its panels and its marks and `where` it was measured below them."""
    panels = _fitting(chart.panels)[0]
    heights = [
        (HEADING_IN if panel.title else 0.1)
        + AXIS_IN
        + (LINES_IN if isinstance(panel, Lines) else ROW_IN * len(_named(panel)))
        for panel in panels
    ]
    keys = {name: colour for name, colour in chart.keys.items() if any(name in panel.names for panel in panels)}
    head = _head(chart, alarm)
    foot = wrapped(_below(chart, where), WIDTH, SIZE)
    widest = max((width_of(name, SIZE) + 30 for name in keys), default=WIDTH)
    columns = max(1, int(WIDTH // widest))
    above = sum(1.35 * size for _, size, _, _ in head) + 1.5 * SIZE * math.ceil(len(keys) / columns) + 10
    height = above + 72 * sum(heights) + 1.35 * SIZE * len(foot) + 14
    figure = Figure(figsize=(WIDTH_IN, height / 72), layout="constrained")
    FigureCanvasAgg(figure)

    def write(text: str, x: float, y: float, **look: Any) -> None:
        figure.text((8 + x) / (72 * WIDTH_IN), y / height, text, **look)

    y = height - MARGIN
    for text, size, weight, colour in head:
        write(text, 0, y, fontsize=size, fontweight=weight, color=colour, va="top")
        y -= 1.35 * size
    for place, (name, colour) in enumerate(keys.items()):
        x, below = widest * (place % columns), 1.5 * SIZE * (place // columns)
        write("\N{BLACK SQUARE}", x, y - below, fontsize=SIZE, color=colour, va="top")
        write(shorten(name, 0.9 * WIDTH), x + 13, y - below, fontsize=SIZE, va="top")
    for place, text in enumerate(reversed(foot)):
        write(text, 0, MARGIN + 1.35 * SIZE * place, fontsize=SIZE, color=QUIET, va="bottom")
    bottom = (10 + 1.35 * SIZE * len(foot)) / height
    engine: Any = figure.get_layout_engine()
    engine.set(rect=(0.005, bottom, 0.985, (height - above) / height - bottom), hspace=0.02)
    grid = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, panel in zip(grid, panels, strict=True):
        title = shorten(panel.title, 0.75 * WIDTH, SIZE, "bold")
        axes.set_title(title, loc="left", fontsize=SIZE, fontweight="bold")
        if isinstance(panel, Rows):
            _draw_rows(axes, panel, keys)
        else:
            _draw_lines(axes, panel, keys)
    return figure


def image(figure: Figure) -> bytes:
    """Return `figure` as SVG without date and version, with its colours for dark mode."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    rules = "".join(
        f'[style*="{kind}: {light}"]{{{kind}:{dark}!important}}'
        for light, dark in DARK.items()
        for kind in ("fill", "stroke")
    )
    style = f'<style type="text/css">@media (prefers-color-scheme:dark){{{rules}}}</style>'.encode()
    return buffer.getvalue().replace(b"<defs>", b"<defs>" + style, 1)


@contextmanager
def figure_settings() -> Iterator[None]:
    """Return the context in which figures are made and saved: matplotlib's defaults, then `RC`."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(RC)
        yield


def width_of(text: str, size: float, weight: str = "normal") -> float:
    """Return the width of one line of `text` in type of `size`, both in points; it is the same in every format."""
    font = FontProperties(family=RC["font.family"], size=size, weight=weight)
    return float(text_to_path.get_text_width_height_descent(text, font, ismath=False)[0])


def shorten(text: str, room: float, size: float = SIZE, weight: str = "normal") -> str:
    """Return `text`, with its middle replaced if it is wider than `room` points: both ends of a name matter most."""

    def of(characters: int) -> str:
        head = (characters - 1) * 2 // 3
        return f"{text[:head]}…{text[len(text) - (characters - 1 - head) :]}"

    if width_of(text, size, weight) <= room:
        return text
    lengths = range(3, len(text))
    fitting = bisect_right(lengths, room, key=lambda characters: width_of(of(characters), size, weight))
    return of(lengths[max(fitting - 1, 0)]) if lengths else text


def wrapped(text: str, room: float, size: float, weight: str = "normal") -> list[str]:
    """Return the lines of `text`, none wider than `room` points."""
    lines: list[str] = []
    for word in text.split():
        if lines and width_of(f"{lines[-1]} {word}", size, weight) <= room:
            lines[-1] += f" {word}"
        else:
            lines.append(shorten(word, room, size, weight))
    return lines


def _fitting(panels: Sequence[Rows | Lines]) -> tuple[Sequence[Rows | Lines], str]:
    rows = accumulate(len(panel.bars) if isinstance(panel, Rows) else 0 for panel in panels)
    fitting = sum(count <= MOST_ROWS for count in rows)
    shown = panels[: max(1, min(fitting, MOST_PANELS))]
    left = f"No room for {first_few(dict.fromkeys(panel.title for panel in panels[len(shown) :]), 5)}: see the tables."
    return shown, left if len(shown) < len(panels) else ""


def _named(panel: Rows) -> list[tuple[str, Bar | None]]:
    """Return the rows of `panel` by their labels, with a row without a bar for each new heading."""
    above = ["", *(bar.heading for bar in panel.bars)]
    return [
        row
        for bar, heading in zip(panel.bars, above, strict=False)
        for row in ((bar.heading, None), (bar.label, bar))[bar.heading in ("", heading) :]
    ]


def _draw_rows(axes: Axes, panel: Rows, keys: Mapping[str, str]) -> None:
    rows = _named(panel)
    axes.set(xlim=panel.ends, ylim=(len(rows) - 0.45, -0.55), xlabel=panel.axis)
    axes.set_yticks(range(len(rows)), [shorten(label, 0.38 * WIDTH) for label, _ in rows])
    for tick, (_, bar) in zip(axes.get_yticklabels(), rows, strict=True):
        tick.set_fontweight("normal" if bar else "bold")
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    if panel.middle is not None:
        axes.axvline(panel.middle, color=INK, linewidth=1.2, zorder=1)
    for y, (_, bar) in enumerate(rows):
        if bar is not None:
            _draw_bar(axes, bar, y, panel, keys)
            axes.annotate(
                shorten(bar.text, 0.36 * WIDTH), (1, y), (7, 0), xycoords=axes.get_yaxis_transform(),
                textcoords="offset points", va="center", color=QUIET if bar.value is None and not bar.parts else INK,
            )  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(plain())


def _draw_bar(axes: Axes, bar: Bar, y: float, panel: Rows, keys: Mapping[str, str]) -> None:
    low, high = panel.ends
    for name, begin, length in bar.parts:
        axes.barh(y, length, left=begin, height=0.72, color=keys.get(name, bar.colour), linewidth=0)
    if bar.value is not None and panel.middle is None:
        axes.barh(y, bar.value, height=0.72, color=bar.colour)
    if bar.span is not None:
        ends = max(bar.span[0], low), min(bar.span[1], high)
        axes.plot(ends, (y, y), color=bar.colour, linewidth=5, alpha=0.5, solid_capstyle="butt")
        for end, marker, beyond in zip(ends, "<>", bar.span, strict=True):
            if end != beyond:
                axes.plot(end, y, marker=marker, markersize=8, color=bar.colour, clip_on=False, zorder=5)
    count = len(bar.points)
    # Points are staggered, so that equal ones remain visible.
    places = [y + 0.45 * ((place + 0.5) / count - 0.5) for place in range(count)]
    axes.scatter(bar.points, places, s=14, facecolors=PAGE, edgecolors=INK, linewidths=0.8, zorder=3)
    crosses = [value for value in bar.crosses if value <= high]
    axes.scatter(crosses, [y] * len(crosses), s=16, marker="x", color=INK, linewidths=1.2, zorder=3)
    if bar.value is not None and panel.middle is not None:
        axes.scatter(bar.value, y, s=44, marker="D", color=bar.colour, edgecolors=INK, linewidths=0.8, zorder=4)
    if bar.mark is not None:
        axes.plot([bar.mark] * 2, [y - 0.4, y + 0.4], color=INK, linestyle="--", linewidth=1.2, zorder=2)


def _draw_lines(axes: Axes, panel: Lines, keys: Mapping[str, str]) -> None:
    markers = {label: MARKERS[place % len(MARKERS)] for place, label in enumerate(keys)}
    for line in panel.lines:
        colour, marker = keys[line.label], markers[line.label]
        dots = max(1, len(line.points) // 12)
        axes.plot(*_columns(line.points), marker=marker, markersize=5, markevery=dots, color=colour, linewidth=1.5)
        if line.band:
            places, low, high = zip(*line.band, strict=True)
            axes.fill_between(places, low, high, color=colour, alpha=0.18, linewidth=0)
        axes.scatter(*_columns(line.circles), s=14, facecolors="none", edgecolors=colour, alpha=0.7)
        axes.plot(*_columns(line.hollow), marker, color=colour, markersize=6, markerfacecolor=PAGE)
    if panel.limit is not None:
        axes.axhline(panel.limit, color=INK, linestyle="--", linewidth=1.2, zorder=1)
    if "x" in panel.log:
        axes.set_xscale("log", base=2)
    if "y" in panel.log:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_locator(NullLocator())
    elif panel.from_zero:
        axes.set_ylim(0, 1.05 * axes.get_ylim()[1])
    axes.xaxis.set_major_locator(FixedLocator(list(panel.ticks)) if panel.ticks else MaxNLocator(8, integer=True))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(plain())
    axes.yaxis.set_major_formatter(plain())
    axes.set(xlabel=panel.x, ylabel=panel.y)


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def plain() -> FuncFormatter:
    """Return a formatter of tick labels with thousands separators, and no digit left out: a step may be 2.5."""
    return FuncFormatter(
        lambda value, _: number(float(value), 6).rstrip("0").rstrip(".") if value % 1 else f"{value:,.0f}"
    )
