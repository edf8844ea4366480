"""Which figures there are: of those that a summary, a rule and a command name, each where there is data for it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from rollout_bench.contracts.load import LoadSpec

if TYPE_CHECKING:
    from rollout_bench.analysis.timed.experiments import Collection as Collected
    from rollout_bench.analysis.timed.rows import Row

TIMED = ("throughput", "speedup", "iterations")
"""Those of modes that generate."""

ONLINE = ("latency", "server")
"""Those of requests to a server."""

SWEEP, GOODPUT = "sweep", "goodput"

PROFILE = ("steps", "roles", "timeline", "roofline")
"""Those of profiles."""

REPLICAS = "replicas"
"""That of data parallel."""

OPERATORS = "operators"
"""That of linear layers alone."""

NAMES = (*TIMED, *ONLINE, SWEEP, GOODPUT, REPLICAS, *PROFILE, OPERATORS)
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
    return (
        *(TIMED if {"offline", "online"} & set(modes) or not modes else ()),
        *(ONLINE if online else ()),
        *([SWEEP] if swept else []),
        *([GOODPUT] if online and has_limits else []),
        *([REPLICAS] if has_replicas else []),
        *(PROFILE if "profile" in modes else ()),
        *([OPERATORS] if "operators" in modes else []),
    )


def figure_names(rows: Sequence[Row], collection: Collected) -> tuple[str, ...]:
    """The figures of what was measured."""
    loads = [record.spec.load for row in rows for record in row.experiment.records[:1]]
    modes = {experiment.mode for experiment in collection.launched}
    return names_of(modes, loads, bool(collection.slo.named), any(row.experiment.has_replicas for row in rows))
