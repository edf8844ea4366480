"""The axes of the matrix: the names by which a config tells its experiments apart, besides the mode."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

AXES = ("platform", "model", "quant", "workload", "setting")
"""What experiments of one mode may differ in, and what a baseline may fix."""

DEFAULT_SETTING = "default"
"""The setting that changes nothing."""


class Placed(Protocol):
    """What stands in a table."""

    @property
    def platform(self) -> str:
        """Kind of device."""

    @property
    def model(self) -> str:
        """The model's name in the config."""

    @property
    def workload(self) -> str:
        """The workload's name in the config."""


class Named(Placed, Protocol):
    """What has a name on each of `AXES`."""

    @property
    def quant(self) -> str:
        """The quantization's name in the config."""

    @property
    def setting(self) -> str:
        """The setting's name in the config."""


Names = tuple[str, ...]
"""A name on each of `AXES`."""

Table = tuple[str, str, str]
"""Platform, model and workload: what stands side by side."""


def names_of(named: Named, changes: Mapping[str, str] | None = None) -> Names:
    """Return the names of an experiment, or of the one that differs from it by `changes`, axis -> name."""
    return tuple((changes or {}).get(axis, getattr(named, axis)) for axis in AXES)


def table_of(placed: Placed) -> Table:
    """Return what an experiment has in common with those that it stands beside."""
    return placed.platform, placed.model, placed.workload


def label_of(named: Named) -> str:
    """Return what tells an experiment from those that it stands beside: its quant, and its setting if it has one."""
    return with_setting(named.quant, named.setting)


def with_setting(label: str, setting: str) -> str:
    """Return the `label` of a quant with the name of its setting, if it has one."""
    return label if setting == DEFAULT_SETTING else f"{label} {setting}"


def title_of(placed: Placed, label: str) -> str:
    """Return what a message calls an experiment that tables call `label`: model, label, workload."""
    return f"{placed.model} {label} {placed.workload}"


def name_of(named: Named) -> str:
    """Return what a message calls an experiment."""
    return title_of(named, label_of(named))
