"""Which figures there are: of those that a summary, a rule and a command name, each where there is data for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rollout_bench.plan.loads import LoadSpec

if TYPE_CHECKING:  # with numpy, which need not be there to name figures
    from rollout_bench.analysis.experiments import Collection
    from rollout_bench.analysis.rows import Row

ALWAYS = ("throughput", "speedup", "iterations")
"""Those of every mode."""

ONLINE = ("latency", "server")
"""Those of requests to a server."""

SWEEP, GOODPUT = "sweep", "goodput"

NAMES = (*ALWAYS, *ONLINE, SWEEP, GOODPUT)
"""Every figure; each is saved as <name>.svg and <name>.png."""


def names_of(loads: Iterable[LoadSpec | None], has_limits: bool) -> tuple[str, ...]:
    """The figures of experiments with these loads, None offline; `has_limits`: where `slo` has one."""
    online = [load for load in loads if load is not None]
    if not online:
        return ALWAYS
    swept = any(len(load.points) > 1 or load.saturation for load in online)
    return (*ALWAYS, *ONLINE, *([SWEEP] if swept else []), *([GOODPUT] if has_limits else []))


def figure_names(rows: Sequence[Row], collection: Collection) -> tuple[str, ...]:
    """The figures of what was measured."""
    loads = [record.spec.load for row in rows for record in row.experiment.records[:1]]
    return names_of(loads, bool(collection.slo.named))
