"""The figure of drift: token probabilities of each experiment, and of the reference again, against the reference."""

from __future__ import annotations

from matplotlib.figure import Figure

from rollout_bench.analysis.inside.drifts import Drifted, DriftReport
from rollout_bench.report.figures.style import INK, QUIET, WIDTH, label_styles, message_figure, new_figure, shorten
from rollout_bench.report.tables.drift_tables import scored_text

TITLE = "Drift from the reference"

NO_BAR = "Where there is no bar, the interval is unbounded or not known."

MOST = 20
"""Maximum number of lines on a slide."""


def drift_figure(report: DriftReport, where: str, alarm: str) -> Figure:
    """Draw a line for each experiment and batch size: mean |d| with its interval; a dashed line is the noise floor."""
    if not report.drifted:
        message = " ".join(report.problems[:2]) or "No valid launch has scored anything yet."
        return message_figure(TITLE, message, alarm=alarm)
    shown = report.drifted[:MOST]
    left_out = len(report.drifted) - len(shown)
    notes = [
        "d: log probability of a token less the reference's. Bars: intervals over sequences. Grey: the "
        "reference against itself; dashed: its floor.",
        "" if all(one.found.size.has_ends for one in shown) else NO_BAR,
        f"Not shown for want of room: {left_out} of {len(report.drifted)}." if left_out else "",
        where,
    ]
    figure = new_figure(TITLE, notes, alarm)
    axes = figure.subplots()
    styles = label_styles(one.chosen.label for one in report.drifted if not one.of_reference)
    several = len({one.reference.place for one in report.drifted}) > 1
    for place, one in enumerate(shown):
        size = one.found.size
        colour = QUIET if one.of_reference else styles[one.chosen.label].colour
        marker = "o" if one.of_reference else styles[one.chosen.label].marker
        axes.plot([size.low, size.high], [-place, -place], color=colour, linewidth=3, solid_capstyle="butt")
        axes.plot([size.value], [-place], color=colour, marker=marker, markersize=9)
        floor = report.floor_of(one)
        if floor is not None:
            x = floor.found.size.value
            axes.plot([x, x], [-place - 0.5, -place + 0.5], color=INK, linestyle="--", linewidth=1.2, zorder=1)
    axes.set_yticks([-place for place in range(len(shown))], [_label(one, several) for one in shown])
    axes.set_ylim(-len(shown) + 0.4, 0.6)
    axes.set_xlim(left=0)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("mean |d|, nats per token")
    return figure


def _label(one: Drifted, several: bool) -> str:
    name = one.name if several else one.chosen.label
    return shorten(f"{name}, {scored_text(one)}", 0.3 * WIDTH, 14)
