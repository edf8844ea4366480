"""What settings differ in: which number of engine or load they go through, and what else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rollout_bench.contracts.spec import Spec

FEWEST = 3
"""Values from which on something is gone through: two are a comparison."""

FOLLOWS = "max_model_len"
"""The argument that is worked out of the lengths of sequences, where nobody sets it."""


def set_in(spec: Spec) -> dict[str, Any]:
    """Return what a setting may set, by its name: engine arguments, environment, and the load."""
    load = spec.workload.model_dump(mode="json", exclude={"name"})
    return {**load, **spec.engine.environment, **spec.engine.args}


def differing(specs: Iterable[Spec]) -> list[str]:
    """Return the names in which settings of one mode, platform, model, quant and workload differ."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for spec in specs:
        names = (spec.mode, *(name for axis, name in spec.axes.items() if axis != "setting"))
        groups.setdefault(names, []).append(set_in(spec))
    found: dict[str, None] = {}
    for settings in groups.values():
        for name in dict.fromkeys(name for setting in settings for name in setting):
            if len({repr(setting.get(name)) for setting in settings}) > 1:
                found[name] = None
    return [name for name in found if name != FOLLOWS or len(found) == 1]


def swept_number(specs: Sequence[Spec]) -> str | None:
    """Return the number that settings go through; of several the one with most values, None where there is none."""
    values = {
        name: {value for spec in specs if (value := number_of(spec, name)) is not None} for name in differing(specs)
    }
    most = max(values, key=lambda name: len(values[name]), default=None)
    return most if most is not None and len(values[most]) >= FEWEST else None


def number_of(spec: Spec, name: str) -> float | None:
    """Return the number `name` under a setting; None where it is none, or where the engine's default is meant."""
    value = set_in(spec).get(name)
    return None if isinstance(value, bool) or not isinstance(value, int | float) else float(value)
