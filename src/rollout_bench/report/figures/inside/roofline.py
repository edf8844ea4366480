"""Roofline: what each operator class computes per second, over how much it computes per byte."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from rollout_bench.analysis.bounds.cost import Cost
from rollout_bench.analysis.bounds.limits import DeviceLimits, measured
from rollout_bench.analysis.bounds.reached import profile_costs, same_machine
from rollout_bench.analysis.inside.overview import Looked
from rollout_bench.core.numbers import number
from rollout_bench.report.figures.style import (
    HALO,
    INK,
    QUIET,
    QuantStyle,
    label_styles,
    legend,
    message_figure,
    new_figure,
    thousands,
)

TITLE = "Roofline"

_MARKERS = {
    "qkv": "o", "o": "s", "gate_up": "^", "down": "v", "lm_head": "D", "router": "P", "experts": "*", "attention": "X",
}  # fmt: skip
"""Role of a linear layer, or category of another operator -> its marker; others share one."""

_OTHER_MARKER = "h"

_LINE_STYLES = ("-", "--", "-.", ":")


@dataclass(frozen=True)
class Point:
    """One operator class of one quant in one phase.

    Attributes:
        category: linear, attention, ...
        role: of linear layers, else empty.
        phase: prefill, decode or mixed.
        quant: the quant's label.
        bytes: that it moves in a step.
        flops: operations in a step; more than 0.
        seconds: that it took in a step, more than 0.
        dtype: data type of its operations: which roof is its own.
    """

    category: str
    role: str
    phase: str
    quant: str
    bytes: float
    flops: float
    seconds: float
    dtype: str

    @property
    def intensity(self) -> float:
        """Operations for each byte."""
        return self.flops / self.bytes

    @property
    def flops_per_s(self) -> float:
        """Operations a second, as achieved."""
        return self.flops / self.seconds

    @property
    def name(self) -> str:
        """The class that its marker stands for."""
        return self.role or self.category


def points_of(costs: Sequence[Cost], seconds: Mapping[tuple[str, str], float], phase: str, quant: str) -> list[Point]:
    """Return a point for each operator class that was timed and compute something.

    Args:
        costs: of a mean step of the phase, on one device (`bounds.share.profile_costs`).
        seconds: (category, role) -> time of a mean step in it, from the categorised events.
        phase: prefill, decode or mixed.
        quant: the quant's label.
    """
    summed: dict[tuple[str, str], tuple[float, float, str]] = {}
    for cost in costs:
        key = cost.category, cost.role
        moved, flops, _ = summed.get(key, (0.0, 0.0, ""))
        summed[key] = moved + cost.bytes, flops + cost.flops, cost.dtype
    return [
        Point(*key, phase, quant, moved, flops, seconds[key], dtype)
        for key, (moved, flops, dtype) in summed.items()
        if flops > 0 and moved > 0 and seconds.get(key, 0.0) > 0
    ]


def roofline_figure(
    points: Sequence[Point], limits: DeviceLimits | None, styles: Mapping[str, QuantStyle], where: str, alarm: str
) -> Figure:
    """Return a panel for each phase; `limits` None draws no roof. `where` names the machine; `alarm` warns."""
    if not points:
        return message_figure(TITLE, "There is no valid profile yet with operators whose sizes are known.", alarm=alarm)
    phases = [phase for phase in ("prefill", "decode", "mixed") if any(point.phase == phase for point in points)]
    notes = [
        "Point: one operator class in a mean step; right: computes more for each byte that it moves; up: computes more"
        " per second. Under the slope memory limits it, under the flat roof computing. Bytes go in and out of"
        " an operator once: a point above the slope found some in a cache.",
        f"Roof: {limits.source} limits of {limits.device}." if limits else "The machine's limits are not known.",
        where,
    ]
    figure = new_figure(TITLE, notes, alarm)
    panels = figure.subplots(1, len(phases), sharex=True, sharey=True, squeeze=False)[0]
    for axes, phase in zip(panels, phases, strict=True):
        draw_roofline(axes, [point for point in points if point.phase == phase], limits, styles, around=points)
        axes.set_title(phase, loc="left")
    panels[0].set_ylabel("GFLOP/s")
    _legend_of_classes(figure, points)
    # their markers are the classes'
    legend(figure, {label: replace(style, marker="") for label, style in styles.items()})
    return figure


def draw_roofline(
    axes: Axes,
    points: Sequence[Point],
    limits: DeviceLimits | None,
    styles: Mapping[str, QuantStyle],
    around: Sequence[Point] = (),
) -> None:
    """Draw `points` and the roofs of their data types; the axes have room for those `around`, too."""
    around = around or points
    axes.set_xscale("log")
    axes.set_yscale("log")
    left, right = _range([point.intensity for point in around], 2.0)
    bottom, top = _range([point.flops_per_s / 1e9 for point in around], 2.0)
    if limits is not None:
        roofs = _roofs(limits, around)
        right = max([right, *(4 * rate / limits.bytes_per_s for rate in roofs.values())])
        top = max([top, *(2 * rate / 1e9 for rate in roofs.values())])
        _draw_roofs(axes, limits, roofs, left, right)
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    axes.set_xlabel("FLOP per byte")
    for formatted in (axes.xaxis, axes.yaxis):
        formatted.set_major_formatter(thousands())
        formatted.set_minor_formatter(NullFormatter())
    if top < 1000 * bottom:
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    for point in points:
        axes.plot(
            point.intensity,
            point.flops_per_s / 1e9,
            _MARKERS.get(point.name, _OTHER_MARKER),
            color=styles[point.quant].colour,
            markersize=10,
            markeredgecolor="white",
            zorder=3,
        )


def _legend_of_classes(figure: Figure, points: Sequence[Point]) -> None:
    names = dict.fromkeys(point.name for point in points)
    order = sorted(names, key=lambda name: [*_MARKERS, name].index(name))
    handles = [
        Line2D([], [], linestyle="", marker=_MARKERS.get(name, _OTHER_MARKER), color=QUIET, markersize=9, label=name)
        for name in order
    ]
    engine = figure.get_layout_engine()
    assert engine is not None, "new_figure gives it one"
    left, bottom, width, height = engine.get()["rect"]
    engine.set(rect=(left, bottom, width, height - 0.05))  # type: ignore[call-arg]
    legend = figure.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(0.0, 0.935), ncols=9, frameon=False, fontsize=13,
        columnspacing=1.0, handletextpad=0.2,
    )  # fmt: skip
    legend.set_in_layout(False)


def _roofs(limits: DeviceLimits, points: Sequence[Point]) -> dict[str, float]:
    used = {point.dtype for point in points}
    return {dtype: rate for dtype, rate in limits.flops_per_s.items() if dtype in used}


def _draw_roofs(axes: Axes, limits: DeviceLimits, roofs: Mapping[str, float], left: float, right: float) -> None:
    slope = limits.bytes_per_s / 1e9
    end = max(roofs.values(), default=right * limits.bytes_per_s) / limits.bytes_per_s
    axes.plot([left, end], [left * slope, end * slope], color=INK, linewidth=2, zorder=2)
    text = axes.annotate(
        f"memory {number(slope, 3)} GB/s", (0.02, 0.98), xycoords="axes fraction", ha="left", va="top", fontsize=12,
        color=INK, bbox=HALO,
    )  # fmt: skip
    text.set_in_layout(False)
    for place, (dtype, rate) in enumerate(sorted(roofs.items(), key=lambda item: item[1])):
        line = _LINE_STYLES[place % len(_LINE_STYLES)]
        axes.plot([rate / limits.bytes_per_s, right], [rate / 1e9] * 2, line, color=INK, linewidth=2, zorder=2)
        label = axes.annotate(
            f"{dtype} {number(rate / 1e9, 3)} GFLOP/s", (rate / limits.bytes_per_s, rate / 1e9), xytext=(0, 4),
            textcoords="offset points", ha="right", va="bottom", fontsize=12, color=INK, bbox=HALO,
        )  # fmt: skip
        label.set_in_layout(False)


def _range(values: Sequence[float], room: float) -> tuple[float, float]:
    return min(values) / room, max(values) * room


def profile_roofline(looked: Looked, where: str, alarm: str) -> Figure:
    """Draw the profiles of the first machine whose limits are known, or of all without a roof where none is."""
    limits = looked.limits[0] if looked.limits else None
    shown = [
        each for each in looked.profiles.profiled if limits is None or same_machine(limits, each.record.environment)
    ]
    points: list[Point] = []
    for each in shown:
        for phase, breakdown in looked.profiles.of(each).items():
            traced = any(step.profiled and step.phase == phase for step in each.record.steps)
            known = looked.architectures.get(each.place)
            costs = profile_costs(each.record, phase, profiled=traced, architecture=known)
            if not isinstance(costs, str):
                seconds = {part: us / 1e6 for part, us in breakdown.scaled.items()}
                points += points_of(costs, seconds, phase, each.quant)
    styles = label_styles(each.quant for each in shown)
    return roofline_figure(points, None if limits is None else measured(limits), styles, where, alarm)
