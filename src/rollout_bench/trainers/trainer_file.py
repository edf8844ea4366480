"""A trainer's settings: a YAML file, changed by the overrides of a command line."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rollout_bench.core.errors import UserError
from rollout_bench.core.yaml_files import read_mapping
from rollout_bench.trainers.keys import Influence, KeyRegistry, TrainerKey

OVERRIDE = re.compile(r"(?P<sign>\+\+|\+|~)?(?P<path>[^=+~\s][^=\s]*)(?P<equals>=)?(?P<value>.*)", re.DOTALL)
"""An override in hydra's syntax: `a.b=1` changes, `+a.b=1` adds, `++a.b=1` changes or adds, `~a.b` removes."""


NOT_THERE = object()
"""Value of a key that is missing, or written as `???`. None can't be used, because null is a value."""


def read_yaml(path: Path, trainer: str, last_wins: bool = False) -> dict[str, Any]:
    """Return the settings in a YAML file, with unresolved interpolations.

    Args:
        path: the file.
        trainer: the trainer's name.
        last_wins: whether this trainer uses the last value of a duplicate key. If so, duplicates only cause a warning.

    Raises:
        UserError: if the file can't be read, is damaged, or contains no keys.
    """
    twice: list[str] | None = [] if last_wins else None
    what, remedy = f"settings of {trainer}", f"give the YAML that {trainer} is started with"
    content = read_mapping(path, what, remedy, twice=twice)
    if twice:
        print(
            f"{path}: warning: the last one holds, as {trainer} reads it, of keys that stand twice: {', '.join(twice)}",
            file=sys.stderr,
        )
    return content


def is_override(word: str) -> bool:
    """Return whether `word`, in the place of a file's name, is an override."""
    return OVERRIDE.fullmatch(word) is not None and "=" in word and not Path(word).exists()


def check_own(name: str, content: dict[str, Any], registry: KeyRegistry, remedy: str) -> None:
    """Raise `UserError` if the settings have no key that affects generation and belongs only to this trainer."""
    keys = [key for path, _ in _leaves(content, "") if (key := registry.find(path)) is not None]
    if not any(key.influence is not Influence.NEUTRAL and key.path not in registry.shared for key in keys):
        raise UserError(f"{name}: has no key for {registry.trainer}'s generation", remedy)


def laid_over(content: dict[str, Any], overrides: Sequence[str], registry: KeyRegistry) -> dict[str, Any]:
    """Apply `overrides` to `content` in their order, in place, and return `content`.

    Raises:
        UserError: if an override has an invalid form, or names an unknown key.
    """
    for override in overrides:
        found = OVERRIDE.fullmatch(override)
        if found is None or not (found["equals"] or found["sign"] == "~"):
            raise UserError(f"{override}: is not an override", "write KEY=VALUE, +KEY=VALUE or ~KEY")
        path, name = found["path"], found["path"].rpartition(".")[2]
        if "/" in path or "@" in path:
            raise UserError(
                f"{override}: chooses one of {registry.trainer}'s files, which rollout-bench cannot read",
                f"add --cfg job to {registry.trainer}'s command, and use the YAML that it prints",
            )
        section = _section(content, path, override, registry.find(path))
        if found["sign"] == "~" and name not in section:
            raise UserError(
                f"{override}: {path} cannot be removed because the file does not contain it", "leave it out"
            )
        if found["sign"] == "~":
            del section[name]
            continue
        meant = registry.misspelt(path, ()) if path not in registry.keys else None
        unknown = meant is not None or (registry.find(path) is None and not registry.below(path))
        if not found["sign"] and name not in section and unknown:
            remedy = f"did you mean '{meant}'?" if meant else registry.instead_of(path)
            raise UserError(f"{override}: {registry.trainer} has no key {path}", remedy)
        section[name] = _value(override, found["value"])
    return content


def _section(content: dict[str, Any], path: str, override: str, key: TrainerKey | None) -> dict[str, Any]:
    """Return the mapping that contains the last part of `path`, made where it is missing.

    An interpolation above a key without influence gives way to it, because its values are not needed.
    """
    for part in path.split(".")[:-1]:
        inner = content.get(part)
        is_needed = key is None or key.influence is not Influence.NEUTRAL
        if inner is None or ("${" in str(inner) and not isinstance(inner, dict) and not is_needed):
            content[part] = {}
        if not isinstance(content[part], dict):
            raise UserError(f"{override}: {part} is no mapping, so nothing can be below it", f"set {part} as a whole")
        content = content[part]
    return content


def _value(override: str, written: str) -> Any:
    try:
        return yaml.safe_load(written) if written else ""
    except (yaml.YAMLError, ValueError) as error:
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UserError(f"{override}: its value can't be read: {problem}", "write it as in a YAML file") from None


@dataclass(frozen=True)
class TrainerFile:
    """A trainer's settings. Interpolations are resolved when a value is read.

    Attributes:
        name: name of the settings in messages.
        content: the settings with unresolved interpolations.
        registry: the known keys.
        tree: `content` as an OmegaConf object.
    """

    name: str
    content: dict[str, Any]
    registry: KeyRegistry
    tree: Any

    @classmethod
    def of(cls, name: str, content: dict[str, Any], registry: KeyRegistry) -> TrainerFile:
        """Return the settings in `content`; raise `UserError` if OmegaConf rejects them, or one is damaged."""
        from omegaconf import OmegaConf  # --help and planning do not need it
        from omegaconf.errors import OmegaConfBaseException

        try:
            content = json.loads(json.dumps(content, default=str))  # OmegaConf and hydra have no dates, unlike YAML
            found = cls(name, content, registry, OmegaConf.create(content))
        except OmegaConfBaseException as error:
            said = str(error).strip().splitlines()[0]
            raise UserError(f"{name}: OmegaConf can't read it: {said}", "mend the file") from None
        except (RecursionError, ValueError):  # an override with an alias of itself
            raise UserError(f"{name}: is nested too deeply", "write values without aliases") from None
        for path, value in _leaves(content, ""):
            if value is None and ":" in path:  # {a:1}, which hydra's own grammar reads as {a: 1}
                raise UserError(
                    f"{name}: {path}: has no value, because YAML reads it as one word", "write a space after each colon"
                )
            is_section = path not in registry.keys and registry.below(path) - {Influence.NEUTRAL}
            if is_section and value is not None and not isinstance(value, dict) and "${" not in str(value):
                below = f"write its keys below it, as {registry.trainer} does"
                raise UserError(f"{name}: {path}: is no mapping", below)
        return found

    def paths(self) -> list[str]:
        """Return the dotted paths of all values in the settings."""
        return [path for path, _ in _leaves(self.content, "")]

    def written(self, path: str) -> Any:
        """Return the value at `path` with resolved interpolations, or `NOT_THERE` if there is none.

        Raises:
            UserError: if an interpolation can't be resolved.
        """
        from omegaconf import OmegaConf
        from omegaconf.errors import OmegaConfBaseException

        try:
            found = OmegaConf.select(self.tree, path, default=NOT_THERE)
            return OmegaConf.to_container(found, resolve=True) if OmegaConf.is_config(found) else found
        except OmegaConfBaseException as error:
            said = str(error).strip().splitlines()[0]
            raise UserError(
                f"{self.name}: {path}: its interpolation can't be resolved: {said}",
                f"add {path}=VALUE to the command, or give the whole of {self.registry.trainer}'s YAML",
            ) from None

    def get(self, path: str) -> Any:
        """Return the value of a registered key, or the trainer's default if the key is missing.

        Raises:
            UserError: if the value can't be resolved or is invalid.
        """
        key = self.registry.keys[path]
        value = self.written(path)
        return key.default if value is NOT_THERE else key.value(value, self.name)

    def needed(self, path: str) -> Any:
        """Return the value of a registered key; raise `UserError` with the key's remedy if there is none."""
        value = self.get(path)
        if value is None:
            raise UserError(f"{self.name}: {path}: is missing", self.registry.keys[path].remedy)
        return value

    def has(self, path: str) -> bool:
        """Return whether the settings have a value at `path`; null counts as a value."""
        return self.written(path) is not NOT_THERE

    def check_spelling(self) -> None:
        """Raise `UserError` for an unknown key that probably misspells a key that affects generation."""
        paths = self.paths()
        for path in paths:
            if path not in self.registry.keys and (meant := self.registry.misspelt(path, paths)) is not None:
                raise UserError(f"{self.name}: {path}: there is no such key", f"did you mean '{meant}'?")


def _leaves(content: dict[str, Any], above: str) -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        path = f"{above}{name}"
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{path}.")
        else:
            yield path, value
