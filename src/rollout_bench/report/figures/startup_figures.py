"""The figure of starts: a waterfall of the phases from the launch's beginning to the first token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rollout_bench.analysis.starts.start_costs import StartCosts, start_costs
from rollout_bench.analysis.timed.rows import Row
from rollout_bench.contracts.modes import STARTUP
from rollout_bench.contracts.starts import PhaseName
from rollout_bench.core.numbers import number
from rollout_bench.report.figures.style import INK, QUIET, message_figure, new_figure, nothing, shorten
from rollout_bench.report.tables.startup_tables import PHASES

STARTUP_TITLE = "What a start costs"

MOST = 6
"""Maximum number of starts on a slide."""

ACROSS = 3

OWN, INSIDE, REST = "#0072B2", "#CFE2EF", "#D55E00"
"""Colours of a phase's own time, of nested phases, and of the time outside all phases (Okabe and Ito 2008)."""


def startup_figure(rows: Sequence[Row], where: str, alarm: str) -> Figure:
    """Draw a panel for each start, with each phase at its own time: means over valid launches."""
    rows = [row for row in rows if row.experiment.mode == STARTUP.name]
    costs = {row.experiment.place: found for row in rows if (found := start_costs(row)) is not None}
    if not costs:
        return message_figure(STARTUP_TITLE, nothing(rows, "No start is measured yet."), alarm=alarm)
    measured = [row for row in rows if row.experiment.place in costs]
    shown = measured[:MOST]
    left_out = (
        f"Not shown for want of room: {len(measured) - MOST} of {len(measured)} starts." if measured[MOST:] else ""
    )
    notes = [
        "Dark: a phase's own seconds; light: phases inside of it. Means over valid launches; the last row is what no "
        "phase explains.",
        left_out,
        where,
    ]
    figure = new_figure(STARTUP_TITLE, notes, alarm)
    across = min(ACROSS, len(shown))
    grid = figure.subplots(-(-len(shown) // across), across, sharex=True, sharey=True, squeeze=False)
    there = {name for row in shown for name in costs[row.experiment.place].phases}
    names = [name for name in PHASES if name in there]
    size = 12.0 if len(shown) <= across else 8.5
    longest = max(costs[row.experiment.place].until_token_s for row in shown)
    several = len({(row.experiment.model, row.experiment.workload) for row in rows}) > 1
    for axes, row in zip(grid.flat, shown, strict=False):
        found = costs[row.experiment.place]
        label = row.name if several else row.label
        axes.set_title(
            shorten(f"{label}: {number(found.until_token_s, 3)} s", 1150 / across, 12), loc="left", fontsize=12
        )
        _draw(axes, names, found, size, longest)
    for axes in list(grid.flat)[len(shown) :]:
        axes.set_axis_off()
    for axes in list(grid.flat)[: len(shown)][-across:]:  # the last of each column
        axes.set_xlabel("s after the launch's beginning")
        axes.tick_params(labelbottom=True)
    return figure


def _draw(axes: Axes, names: Sequence[PhaseName], costs: StartCosts, size: float, longest: float) -> None:
    heights: Mapping[str, int] = {name: -place for place, name in enumerate([*names, "rest"])}
    axes.set_yticks(list(heights.values()), [*(PHASES[name][0] for name in names), "rest"], fontsize=size)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.set_xlim(0, 1.22 * longest)
    axes.set_ylim(-len(names) - 0.6, 0.6)
    for name in names:
        phase = costs.phases.get(name)
        if phase is None:
            continue
        span = phase.ended_s - phase.began_s
        axes.barh(
            heights[name], span, left=phase.began_s, height=0.7, color=INSIDE if phase.own_s < 0.97 * span else OWN
        )
        axes.barh(heights[name], min(phase.own_s, span), left=phase.began_s, height=0.7, color=OWN)
        _write(axes, phase.ended_s, heights[name], phase.own_s, size, INK)
    axes.barh(heights["rest"], costs.rest_s, left=0, height=0.7, color=REST)
    _write(axes, costs.rest_s, heights["rest"], costs.rest_s, size, QUIET)


def _write(axes: Axes, x: float, y: float, seconds: float, size: float, colour: str) -> None:
    text = number(seconds, 2) if seconds >= 0.005 else "0"
    axes.annotate(text, (x, y), (4, 0), textcoords="offset points", va="center", fontsize=size, color=colour)
