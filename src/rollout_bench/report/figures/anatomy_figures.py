"""The figure of a step: how many of its sequences run, from the first until the last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rollout_bench.analysis.stats.anatomy import PassTimes, complete_s, running
from rollout_bench.analysis.timed.rows import Row
from rollout_bench.report.figures.style import (
    INK,
    ROOM,
    QuantStyle,
    group_of,
    group_title,
    heaviest,
    legend,
    message_figure,
    new_figure,
    nothing,
    quant_styles,
    title_panel,
)

TITLE = "Sequences that run, over a step"

DOWN, ACROSS = 3, 4
"""Models down, and workloads or their replicas across, that fit on a slide."""

Times = Mapping[str, Sequence[Sequence[PassTimes]]]
"""The passes of each launch, by the place of their row."""


def anatomy_figure(rows: Sequence[Row], times: Times, where: str, alarm: str) -> Figure:
    """Draw how many sequences ran in a typical step: a panel per model, workload and replica, a line per quant."""
    every = rows
    rows, swept = heaviest([row for row in rows if row.experiment.place in times])
    if not rows:
        return message_figure(TITLE, nothing(every, "No step has times of single sequences."), alarm=alarm)
    typical = {row.experiment.place: typical_pass(times[row.experiment.place]) for row in rows}
    styles = quant_styles(every)
    models = list(dict.fromkeys(row.experiment.model for row in rows))
    groups = list(dict.fromkeys(map(group_of, rows)))
    engines = dict.fromkeys(groups, 1)
    for row in rows:
        replicas = 1 + int(typical[row.experiment.place].replica.max())
        engines[group_of(row)] = max(engines[group_of(row)], replicas)
    across = [(group, replica) for group in groups for replica in range(engines[group])]
    notes = [
        "Line: the measured iteration with the median makespan of all valid launches.",
        "Marks: half of its sequences complete (hollow), 90 % (filled), all (with a dark edge).",
    ]
    if len(across) > len(groups):
        notes.append("Each replica has a panel, with marks of its own sequences.")
    if len(across) > ACROSS or len(models) > DOWN:
        notes.append(f"Not shown for want of room: some of {len(models) * len(across)} panels.")
    across, models = across[:ACROSS], models[:DOWN]
    figure = new_figure(TITLE, [*notes, swept, where], alarm)
    drawn = {row.label for row in rows if row.experiment.model in models and group_of(row) in dict(across)}
    legend(figure, {label: style for label, style in styles.items() if label in drawn})
    grid = figure.subplots(len(models), len(across), squeeze=False)
    for model, line in zip(models, grid, strict=True):
        for (group, replica), axes in zip(across, line, strict=True):
            here = [row for row in rows if row.experiment.model == model and group_of(row) == group]
            passes = {row.label: typical[row.experiment.place] for row in here}
            axes.set_visible(bool(here))
            for label, one in passes.items():
                _draw(axes, one, replica, styles[label])
            if here:
                axes.set_xlim(0, ROOM * max(float(one.ends_s.max()) for one in passes.values()))
                if replica:
                    axes.sharey(line[across.index((group, 0))])
                axes.tick_params(axis="x", pad=8)  # or the zeros of both axes touch
                axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
                title = f"{model}, {group_title(group, groups).removeprefix('workload ')}"
                title_panel(axes, f"{title}, replica {replica}" if engines[group] > 1 else title, len(across))
    for column in grid.T:
        for axes in [axes for axes in column if axes.get_visible()][-1:]:
            axes.set_xlabel("s after the step began")
    for axes in grid.flat:
        axes.set_ylim(bottom=0)
    figure.supylabel("running sequences", fontsize=15)
    return figure


def typical_pass(launches: Sequence[Sequence[PassTimes]]) -> PassTimes:
    """Return of all passes of `launches` the one with the median makespan, of two the shorter one."""
    ordered = sorted((each for passes in launches for each in passes), key=lambda each: float(each.ends_s.max()))
    return ordered[(len(ordered) - 1) // 2]


def _draw(axes: Axes, times: PassTimes, replica: int, style: QuantStyle) -> None:
    own = times.replica == replica
    if not own.any():
        return
    begins, ends = times.begins_s[own], times.ends_s[own]
    at_s, sequences = running(begins, ends)
    axes.step([at_s[0], *at_s], [0, *sequences], where="post", color=style.colour, linewidth=1.5)
    for percent, face, edge in (
        (50, "white", style.colour),
        (90, style.colour, style.colour),
        (100, style.colour, INK),
    ):
        moment = complete_s(ends, percent)
        left = int((begins < moment).sum() - (ends < moment).sum())  # just before: at the end itself none would run
        axes.plot(
            moment, left, style.marker, color=style.colour, markerfacecolor=face, markeredgecolor=edge,
            markersize=9, markeredgewidth=1.5, zorder=3, clip_on=False,
        )  # fmt: skip
