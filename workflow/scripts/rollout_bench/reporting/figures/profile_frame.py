"""What the figures of profiles share: colours of categories, and a line for each model, workload and quant."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from rollout_bench.analysis.profiles.profiled import CATEGORIES, HOST_GAP, OTHER, Profiled
from rollout_bench.reporting.figures.panels import MAX_LINES, MIN_HEIGHT, TOP
from rollout_bench.reporting.figures.style import HALO, INK, shorten
from rollout_bench.reporting.profile_words import category_word

COLOURS = {
    "linear": "#0072B2",
    "quantize": "#D55E00",
    "attention": "#E69F00",
    "kv_cache": "#F0C987",
    "norm": "#009E73",
    "activation": "#CC79A7",
    "rotary": "#8ED3BC",
    "embedding": "#7A5195",
    "sampling": "#56B4E9",
    "communication": "#000000",
    "memory_copy": "#8C6D31",
    OTHER: "#888888",
    HOST_GAP: "#E4E4E4",
}
"""Okabe and Ito's palette (2008) and tints of it: large categories differ most."""

_IN_A_LINE = 5
"""Categories of the legend side by side."""

Table = tuple[str, str, str]
"""Platform, model and workload: what one heading is above."""


@dataclass(frozen=True)
class Lines:
    """Where each profile goes, by its place, and each heading; one line is one unit high."""

    heights: dict[str, float]
    labels: dict[str, str]
    headings: dict[str, float]
    left_out: str

    @property
    def height(self) -> float:
        """From above the first heading to below the last line."""
        return TOP - min(self.heights.values()) + 0.6

    @property
    def text_size(self) -> float:
        """Points of the text beside a line."""
        return min(14.0, 310 / max(self.height, MIN_HEIGHT))


def lines_of(profiled: Sequence[Profiled]) -> Lines:
    """Lays out `profiled` (at least one), those of one model and workload together."""
    tables = list(dict.fromkeys(each.table for each in profiled))
    ordered = [each for table in tables for each in profiled if each.table == table]
    heights: dict[str, float] = {}
    headings: dict[str, float] = {}
    y = 0.0
    for each in ordered[:MAX_LINES]:
        title = table_title(each.table, tables)
        if title not in headings:
            y -= 0.15
            headings[title] = y
            y -= 0.95
        heights[each.place] = y
        y -= 1
    left = len(ordered) - MAX_LINES
    left_out = f"Not shown for want of room: {left} of {len(ordered)} profiles; select fewer." if left > 0 else ""
    return Lines(heights, {each.place: each.quant for each in ordered[:MAX_LINES]}, headings, left_out)


def table_title(table: Table, tables: Sequence[Table]) -> str:
    """Model and workload, and the platform where there are several."""
    platform, model, workload = table
    return ", ".join([model, workload, *([platform] if len({other[0] for other in tables}) > 1 else [])])


def draw_lines(axes: Axes, lines: Lines, first: bool, characters: int) -> None:
    """Ticks for the lines and headings above them; names stand left of the first panel alone."""
    spare = max(0.0, MIN_HEIGHT - lines.height) / 2
    axes.set_ylim(TOP - lines.height - spare, TOP + spare)
    axes.set_yticks(list(lines.heights.values()), [shorten(lines.labels[place], 18) for place in lines.heights])
    axes.tick_params(axis="y", length=0, labelsize=lines.text_size, labelleft=first)
    axes.grid(axis="y", visible=False)
    for title, y in lines.headings.items() if first else ():
        name = axes.annotate(
            shorten(title, characters), (0, y), xycoords=("axes fraction", "data"), xytext=(4, 0),
            textcoords="offset points", va="center", fontsize=lines.text_size, fontweight="bold", color=INK, bbox=HALO,
        )  # fmt: skip
        name.set_in_layout(False)


def category_legend(figure: Figure, shown: Iterable[str]) -> None:
    """The categories in `shown`, in two lines beside the title."""
    there = set(shown)
    handles = [
        Patch(facecolor=COLOURS[category], label=category_word(category))
        for category in CATEGORIES
        if category in there
    ]
    columns = max(_IN_A_LINE, -(-len(handles) // 2))
    narrow: dict[str, Any] = {"fontsize": 11, "handlelength": 1, "handletextpad": 0.4, "columnspacing": 0.8}
    legend = figure.legend(handles=handles, loc="upper right", ncols=columns, frameon=False, **narrow)
    legend.set_in_layout(False)


def ink_on(category: str) -> str:
    """A colour for text on the category's own that can be read."""
    red, green, blue = (int(COLOURS[category][place : place + 2], 16) for place in (1, 3, 5))
    return "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 140 else INK
