"""The axes of the matrix: besides the mode, the names that identify a config's experiments."""

from collections.abc import Iterable, Mapping
from typing import Protocol

AXES = ("platform", "model", "quant", "workload", "setting")
"""Axes on which experiments of one mode may differ, and which a baseline may fix."""

DEFAULT_SETTING = "default"
"""The setting without changes."""

UNKNOWN = "unknown"
"""Platform, quantization, weights and engine of a server that somebody else started."""


class Placed(Protocol):
    """An entry of a table."""

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
    """An object with a name on each of `AXES`."""

    @property
    def quant(self) -> str:
        """The quantization's name in the config."""

    @property
    def setting(self) -> str:
        """The setting's name in the config."""


Names = tuple[str, ...]
"""A name on each of `AXES`."""

Table = tuple[str, str, str]
"""Platform, model and workload: the key of a table."""


def names_of(named: Named, changes: Mapping[str, str] | None = None) -> Names:
    """Return the names of an experiment, with `changes` (axis -> name) applied."""
    return tuple((changes or {}).get(axis, getattr(named, axis)) for axis in AXES)


def first_of_several(cells: Iterable[tuple[object, Mapping[str, str]]], axis: str) -> str:
    """Return the first name on `axis` of the first experiments that differ only there; empty without any.

    Args:
        cells: of each experiment what must be equal besides its names, and its name on each of `AXES`.
        axis: the axis.
    """
    names_of_cell: dict[object, list[str]] = {}
    for also, names in cells:
        names_of_cell.setdefault((also, *(names[other] for other in AXES if other != axis)), []).append(names[axis])
    return next((cell_names[0] for cell_names in names_of_cell.values() if len({*cell_names}) > 1), "")


def table_of(placed: Placed) -> Table:
    """Return the table of an experiment."""
    return placed.platform, placed.model, placed.workload


def label_of(named: Named) -> str:
    """Return the name of an experiment within its table: its quantization, and its setting unless it is the default."""
    return with_setting(named.quant, named.setting)


def with_setting(label: str, setting: str, named: bool = False) -> str:
    """Return the `label` of a quantization with the name of its setting.

    Args:
        label: an unknown quantization is only named if nothing else is.
        setting: the name of the setting.
        named: whether the default is named too, as where others stand beside it.
    """
    unnamed = (UNKNOWN,) if named else (UNKNOWN, DEFAULT_SETTING)
    return " ".join(name for name in (label, setting) if name not in unnamed) or label


def with_key(label: str, key: str) -> str:
    """Return the `label` of an experiment that has the names of another one, with its key; the key if none is known."""
    return f"({key})" if label == UNKNOWN else f"{label} ({key})"


def title_of(placed: Placed, label: str) -> str:
    """Return the name in messages of an experiment with this `label`: model, label, workload."""
    return " ".join(name for name in (placed.model, label, placed.workload) if name != UNKNOWN)


def name_of(named: Named) -> str:
    """Return the name of an experiment in messages."""
    return title_of(named, label_of(named))
