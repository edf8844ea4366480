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

_DRAWINGS = "rollout_bench.report.figures.drawings"


@dataclass(frozen=True)
class Drawing:
    """One figure.

    Attributes:
        name: of its file, <name>.svg.
        function: function of `drawings` that returns its chart, or the reason for its absence, for `parts.Findings`.
        needs: data that it needs besides an experiment in one of its modes.
        title: its title in summary.md; empty if it is not shown there.
    """

    name: str
    function: str
    needs: Literal["", "comparisons", "sweep", "settings"] = ""
    title: str = ""


DRAWINGS = {
    drawing.name: drawing
    for drawing in (
        Drawing("placement", f"{_DRAWINGS}:placement", title="What each device does in a step"),
        Drawing("startup", f"{_DRAWINGS}:startup", title="Time of a start, phase by phase"),
        Drawing("cycle", f"{_DRAWINGS}:cycle", title="Time of a step, part by part"),
        Drawing("speedup", f"{_DRAWINGS}:speedup", "comparisons", "Speed-up"),
        Drawing("throughput", f"{_DRAWINGS}:throughput", title="Throughput"),
        Drawing("iterations", f"{_DRAWINGS}:iterations"),
        Drawing("sweep", f"{_DRAWINGS}:sweep", "sweep", "Latency over the sweep"),
        Drawing("settings", f"{_DRAWINGS}:over_setting", "settings", "Throughput over a setting"),
        Drawing("steps", f"{_DRAWINGS}:steps", title="Time of a step, by category of operators"),
        Drawing("messages", f"{_DRAWINGS}:messages", title="Bytes of messages in each step"),
        Drawing("message_shares", f"{_DRAWINGS}:message_shares", title="Share of a decode step that messages take"),
        Drawing("drift", f"{_DRAWINGS}:drift", title="Drift from the reference"),
    )
}
"""Name -> figure, in the order of summary.md."""

NAMES = tuple(dict.fromkeys(figure for mode in MODES.values() for figure in mode.figures))
"""Every figure, in the order of drawing."""


def names_of(
    modes: Collection[str],
    loads: Iterable[LoadSpec | None],
    goes_through: str | None = None,
    has_comparisons: bool = True,
) -> tuple[str, ...]:
    """Return the figures of experiments in these modes.

    Args:
        modes: the selected modes.
        loads: load of each experiment that generates, None offline.
        goes_through: the number that settings sweep, or None.
        has_comparisons: whether there is a speed-up; before the measurement this is assumed.
    """
    online = [load for load in loads if load is not None]
    there = {
        "": True,
        "comparisons": has_comparisons,
        "sweep": any(len(load.points) > 1 for load in online),
        "settings": goes_through is not None,
    }
    shown = {figure for mode in modes or [OFFLINE.name] for figure in mode_of(mode).figures}
    return tuple(name for name in NAMES if name in shown and there[DRAWINGS[name].needs])


def names_of_specs(
    modes: Collection[str],
    timed: Sequence[Spec],
    *,
    has_comparisons: bool = True,
) -> tuple[str, ...]:
    """Return `names_of` with the values from the specs `timed`, which are of modes that generate."""
    return names_of(
        modes,
        [spec.load for spec in timed],
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
        has_comparisons=any(one.speedup is not None for row in rows for one in row.comparisons.values()),
    )
