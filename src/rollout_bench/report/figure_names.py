"""The figures: their names, their drawing functions, and the data that they need.

A figure is an entry here, named by the modes that it shows, and a function that draws it.
This module is imported while the workflow is parsed, so the functions are only named.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rollout_bench.contracts.load import LoadSpec
from rollout_bench.contracts.modes import MODES, OFFLINE, mode_of
from rollout_bench.contracts.spec import Spec, swept_number

if TYPE_CHECKING:
    from rollout_bench.analysis.timed.experiments import Collection as Collected
    from rollout_bench.analysis.timed.rows import Row

_FIGURES = "rollout_bench.report.figures"


@dataclass(frozen=True)
class Drawing:
    """One figure.

    Attributes:
        name: of its file, <name>.svg.
        function: module:function that draws it. Arguments: the values of `of`, the machine, and the warning.
        of: attributes of `parts.Findings` that it is drawn from.
        needs: data that it needs besides an experiment in one of its modes.
        title: its title in summary.md; empty if it is not shown there.
    """

    name: str
    function: str
    of: tuple[str, ...]
    needs: Literal[
        "",
        "comparisons",
        "loads",
        "sweep",
        "replicas",
        "settings",
    ] = ""
    title: str = ""


_TIMED, _ONLINE, _PROFILE = (
    f"{_FIGURES}.timed_figures",
    f"{_FIGURES}.online_figures",
    f"{_FIGURES}.inside.profile_figures",
)
_COMPARISON = "collection.comparison"

DRAWINGS = {
    drawing.name: drawing
    for drawing in (
        Drawing(
            "placement",
            f"{_FIGURES}.placement_figures:placement_figure",
            ("drawn",),
            title="What each device does in a step",
        ),
        Drawing(
            "startup",
            f"{_FIGURES}.startup_figures:startup_figure",
            ("drawn",),
            title="What a start costs, phase by phase",
        ),
        Drawing("cycle", f"{_FIGURES}.cycle_figures:cycle_figure", ("drawn",), title="What a step costs"),
        Drawing("throughput", f"{_TIMED}:throughput_figure", ("drawn",), title="Throughput"),
        Drawing(
            "speedup",
            f"{_TIMED}:speedup_figure",
            ("drawn", "collection.baseline", _COMPARISON),
            "comparisons",
            "Speed-up",
        ),
        Drawing("iterations", f"{_TIMED}:iterations_figure", ("drawn",)),
        Drawing("latency", f"{_ONLINE}:latency_figure", ("drawn",), "loads", "Latency"),
        Drawing("sweep", f"{_ONLINE}:sweep_figure", ("drawn", _COMPARISON), "sweep", "Latency over the sweep"),
        Drawing(
            "settings",
            f"{_FIGURES}.setting_figures:settings_figure",
            ("rows", _COMPARISON),
            "settings",
            "Throughput over a setting",
        ),
        Drawing("replicas", f"{_TIMED}:replicas_figure", ("drawn",), "replicas", "When replicas were done"),
        Drawing("steps", f"{_PROFILE}:steps_figure", ("inside.profiles",), title="Where a step's time goes"),
        Drawing(
            "messages",
            f"{_FIGURES}.inside.message_figures:messages_figure",
            ("inside.messages",),
            title="Bytes of messages in each step",
        ),
        Drawing(
            "message_shares",
            f"{_FIGURES}.inside.message_figures:shares_figure",
            ("inside.messages",),
            title="Share of a decode step that messages take",
        ),
        Drawing(
            "drift",
            f"{_FIGURES}.inside.drift_figures:drift_figure",
            ("inside.drift",),
            title="Drift from the reference",
        ),
    )
}
"""Name -> figure, in the order of summary.md."""

NAMES = tuple(dict.fromkeys(figure for mode in MODES.values() for figure in mode.figures))
"""Every figure, in the order of drawing."""


def names_of(
    modes: Collection[str],
    loads: Iterable[LoadSpec | None],
    has_replicas: bool = False,
    goes_through: str | None = None,
    has_comparisons: bool = True,
) -> tuple[str, ...]:
    """Return the figures of experiments in these modes.

    Args:
        modes: the selected modes.
        loads: load of each experiment that generates, None offline.
        has_replicas: whether an experiment has several replicas.
        goes_through: the number that settings sweep, or None.
        has_comparisons: whether there is a speed-up; before the measurement this is assumed.
    """
    online = [load for load in loads if load is not None]
    there = {
        "": True,
        "comparisons": has_comparisons,
        "loads": bool(online),
        "sweep": any(len(load.points) > 1 for load in online),
        "replicas": has_replicas,
        "settings": goes_through is not None,
    }
    shown = {figure for mode in modes or [OFFLINE.name] for figure in mode_of(mode).figures}
    return tuple(name for name in NAMES if name in shown and there[DRAWINGS[name].needs])


def names_of_specs(
    modes: Collection[str],
    timed: Sequence[Spec],
    has_replicas: bool,
    *,
    has_comparisons: bool = True,
) -> tuple[str, ...]:
    """Return `names_of` with the values from the specs `timed`, which are of modes that generate."""
    return names_of(
        modes,
        [spec.load for spec in timed],
        has_replicas=has_replicas,
        goes_through=swept_number(timed),
        has_comparisons=has_comparisons,
    )


def figure_names(rows: Sequence[Row], collection: Collected) -> tuple[str, ...]:
    """Return the figures for which valid launches have data; none without a valid launch."""
    rows = [row for row in rows if row.used]
    modes = {one.mode for one in collection.launched if any(record.valid for record in one.records)}
    if not modes:
        return ()
    # each experiment once, even with several loads
    every = list({row.experiment.whole.place: row.experiment.records[0].spec for row in rows}.values())
    return names_of_specs(
        modes,
        every,
        has_replicas=any(row.experiment.has_replicas for row in rows),
        has_comparisons=any(one.speedup is not None for row in rows for one in row.comparisons.values()),
    )
