"""The axes of the matrix: the names by which a config tells its experiments apart, besides the mode."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

AXES = ("platform", "model", "quant", "workload")
"""What experiments of one mode may differ in, and what a baseline may fix."""


class Named(Protocol):
    """What has a name on each of `AXES`."""

    @property
    def platform(self) -> str:
        """Kind of device."""

    @property
    def model(self) -> str:
        """The model's name in the config."""

    @property
    def quant(self) -> str:
        """The quantization's name in the config."""

    @property
    def workload(self) -> str:
        """The workload's name in the config."""


Names = tuple[str, ...]
"""A name on each of `AXES`."""

Table = tuple[str, str, str]
"""Platform, model and workload: what stands side by side."""


def names_of(named: Named, changes: Mapping[str, str] | None = None) -> Names:
    """Return the names of an experiment, or of the one that differs from it by `changes`, axis -> name."""
    return tuple((changes or {}).get(axis, getattr(named, axis)) for axis in AXES)


def table_of(named: Named) -> Table:
    """Return what an experiment has in common with those that it stands beside."""
    return named.platform, named.model, named.workload


def title_of(named: Named, label: str = "") -> str:
    """Return what a message calls an experiment: model, quant (or the `label` that tables have for it), workload."""
    return f"{named.model} {label or named.quant} {named.workload}"
