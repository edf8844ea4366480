"""Registry of a trainer's settings: the effect of each key on generation, as its YAML file and README.md have it."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

import yaml

from rollout_bench.core.errors import UserError, did_you_mean, shown
from rollout_bench.core.readers import Reader, count, finite, index, maybe, number, share, switch, text


class Influence(Enum):
    """The treatment of a key."""

    HONOURED = "honoured"
    UNSUPPORTED = "not supported"
    NEUTRAL = "without influence on generation"
    UNKNOWN = "unknown"


def top_k(value: Any) -> int:
    """Return the number of candidates; -1 keeps all. Trainers also write 0 or null for -1."""
    found = finite(-1 if value is None else value)
    if found is None or not found.is_integer() or found < -1:
        raise ValueError("a whole number from 1 up, or -1 for all")
    return int(found or -1)


def mapping(value: Any) -> dict[str, Any]:
    """Return a mapping, empty for null."""
    if value is not None and not isinstance(value, dict):
        raise ValueError("a mapping")
    return {str(key): inner for key, inner in (value or {}).items()}


def numbers(value: Any) -> list[int] | None:
    """Return a list of whole numbers, or None for null."""
    if value is not None and not isinstance(value, list):
        raise ValueError("a list of whole numbers")
    return None if value is None else [count(one) for one in value]


READERS: dict[str, Reader[Any]] = {
    "count": count,
    "index": index,
    "mapping": mapping,
    "number": number,
    "numbers": numbers,
    "share": share,
    "switch": switch,
    "text": text,
    "top_k": top_k,
}
"""Name in a file -> reader; with ` or null`, it also accepts null."""


@dataclass(frozen=True)
class TrainerKey:
    """One key of a trainer's settings, or a key with all keys below it.

    Attributes:
        path: dotted path; `.*` at its end means the key and all keys below it.
        influence: treatment of the key.
        says: explanation for the user: its use in the config, why it has no effect, or the effect of ignoring it.
        read: name of the reader that checks and converts the value, or the supported values.
        default: the trainer's default value.
        argument: the engine argument that receives the value unchanged, if any.
        unless: values with which an unsupported key has no effect.
        remedy: what the user should do about a wrong value.
    """

    path: str
    influence: Influence
    says: str = ""
    read: str | list[Any] | None = None
    default: Any = None
    argument: str | None = None
    unless: Sequence[Any] = ()
    remedy: str = ""

    def value(self, written: Any, where: str) -> Any:
        """Return a written value, converted by the reader.

        Raises:
            UserError: if the value is not valid. The error names the file `where`.
        """
        if isinstance(self.read, list) and written not in self.read:
            words = [str(word) for word in self.read if word is not None]
            problem, remedy = f"measured here, only {', '.join(words)}", did_you_mean(str(written), words)
        elif not isinstance(self.read, str):
            return written
        else:
            name, _, nullable = self.read.partition(" or ")
            try:
                return (maybe(READERS[name]) if nullable else READERS[name])(written)
            except ValueError as error:
                problem, remedy = str(error), f"correct it there, or add {self.path}=VALUE to the command"
        raise UserError(f"{where}: {self.path}: {shown(written)} is not {problem}", self.remedy or remedy)


ALIKE = 0.85
"""Minimum similarity of a misspelt key to a known key. It is high, because users' scripts add other keys."""


@dataclass(frozen=True)
class KeyRegistry:
    """All known keys of a trainer.

    Attributes:
        trainer: the trainer's name in messages.
        keys: path -> key.
        shared: paths that other trainers have, too, so that they do not identify the trainer of a file.
    """

    trainer: str
    keys: Mapping[str, TrainerKey]
    shared: Collection[str] = ()

    @classmethod
    def of(cls, trainer: str, version: str) -> KeyRegistry:
        """Return the keys of a trainer, with the defaults of one of its versions or kinds."""
        content = table(trainer)
        groups = {"honoured": Influence.HONOURED, "unsupported": Influence.UNSUPPORTED, "deciding": Influence.NEUTRAL}
        keys = [
            TrainerKey(
                path, influence, **{"says": f"engine argument {row['argument']}" if "argument" in row else "", **row}
            )
            for group, influence in groups.items()
            for path, row in content.get(group, {}).items()
        ]
        keys += [
            TrainerKey(path, Influence.NEUTRAL, says) for says, paths in content["neutral"].items() for path in paths
        ]
        found = {key.path: key for key in keys}
        assert len(found) == len(keys), "a key has two entries"
        for path, default in content["versions"][version].items():
            found[path] = replace(found[path], default=default)
        return cls(trainer, found, content.get("shared", ()))

    def find(self, path: str) -> TrainerKey:
        """Return the entry for `path`, or the nearest one above it for all keys below; else an unknown key."""
        parts = path.split(".")
        for above in (".".join(parts[:length]) for length in range(len(parts), 0, -1)):
            exact = self.keys.get(above)
            if exact is not None and (above == path or exact.read == "mapping"):
                return exact
            if f"{above}.*" in self.keys:
                return self.keys[f"{above}.*"]
        return TrainerKey(path, Influence.UNKNOWN, f"{self.trainer}'s versions that are known here lack it")

    def below(self, path: str) -> set[Influence]:
        """Return the treatments of the known keys below `path`."""
        return {key.influence for known, key in self.keys.items() if known.startswith(f"{path}.")}

    def misspelt(self, path: str, written: Collection[str] = ()) -> str | None:
        """Return the key that `path` probably misspells, among keys that affect generation and are not in `written`."""
        if path in self.keys:
            return None
        parent, _, name = path.rpartition(".")
        beside = [key.path for key in self.keys.values() if key.influence is not Influence.NEUTRAL]
        known = {key.rpartition(".")[2]: key for key in beside if key.rpartition(".")[0] == parent}
        close = difflib.get_close_matches(name, known, n=1, cutoff=ALIKE)
        return known[close[0]] if close and known[close[0]] not in written else None


def table(trainer: str) -> dict[str, Any]:
    """Return the content of a trainer's file of keys."""
    content: dict[str, Any] = yaml.safe_load(Path(__file__).with_name(f"{trainer.lower()}.yaml").read_text())
    return content


VERL_VERSIONS = tuple(table("verl")["versions"])
"""Supported versions of verl, newest first."""

TRL_TRAINERS = tuple(table("trl")["versions"])
"""Supported trainers of TRL."""
