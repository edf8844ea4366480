"""The registry of modes: the folders in modes/, and entry points of other packages."""

from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import iter_modules

from rollout_bench import modes
from rollout_bench.contracts.mode import Mode


def _ours() -> list[Mode]:
    folders = [module.name for module in iter_modules(modes.__path__)]
    order = [*(name for name in modes.ORDER if name in folders), *(n for n in folders if n not in modes.ORDER)]
    return [import_module(f"{modes.__name__}.{name}").MODE for name in order]


_ADDED = (found.load() for found in entry_points(group="rollout_bench.modes"))

MODES: dict[str, Mode] = {mode.name: mode for mode in (*_ours(), *_ADDED)}
"""Name -> mode, in the order of all lists: ours, then those of other packages, by their entry points."""

DEFAULT_MODE = next(iter(MODES.values()))
"""The mode of a config that names none."""


def mode_of(name: str) -> Mode:
    """Return the mode called `name`, or the default for an unknown folder of results."""
    return MODES.get(name, DEFAULT_MODE)
