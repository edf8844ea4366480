"""Which figures there are: of those that a summary, a rule and a command name, each where there is data for it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from rollout_bench.contracts.load import LoadSpec
from rollout_bench.contracts.modes import MODES, OFFLINE, mode_of

if TYPE_CHECKING:
    from rollout_bench.analysis.timed.experiments import Collection as Collected
    from rollout_bench.analysis.timed.rows import Row

NAMES = tuple(dict.fromkeys(figure for mode in MODES.values() for figure in mode.figures))
"""Every figure; each is saved as <name>.svg and <name>.png."""


def names_of(
    modes: Collection[str], loads: Iterable[LoadSpec | None], has_limits: bool, has_replicas: bool = False
) -> tuple[str, ...]:
    """The figures of experiments in these modes.

    Args:
        modes: what is selected.
        loads: of each experiment that generates, None offline.
        has_limits: where `slo` has one.
        has_replicas: where an experiment has several.
    """
    online = [load for load in loads if load is not None]
    swept = any(len(load.points) > 1 or load.saturation for load in online)
    has_data = {
        "latency": bool(online),
        "server": bool(online),
        "sweep": swept,
        "goodput": bool(online) and has_limits,
        "replicas": has_replicas,
    }
    shown = {figure for mode in modes or [OFFLINE.name] for figure in mode_of(mode).figures}
    return tuple(name for name in NAMES if name in shown and has_data.get(name, True))


def figure_names(rows: Sequence[Row], collection: Collected) -> tuple[str, ...]:
    """The figures of what was measured."""
    loads = [record.spec.load for row in rows for record in row.experiment.records[:1]]
    modes = {experiment.mode for experiment in collection.launched}
    return names_of(modes, loads, bool(collection.slo.named), any(row.experiment.has_replicas for row in rows))
