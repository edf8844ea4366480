"""Registry of a trainer's settings: the effect of each key on generation.

Each key has exactly one `Influence`. Support for a further key changes the influence of its entry.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from rollout_bench.core.errors import UserError, did_you_mean, shown
from rollout_bench.core.readers import Reader, count, finite


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
    if value is None:
        return None
    if not isinstance(value, list):
        raise ValueError("a list of whole numbers")
    return [count(one) for one in value]


@dataclass(frozen=True)
class TrainerKey:
    """One key of a trainer's settings, or a key with all keys below it.

    Attributes:
        path: dotted path; `.*` at its end means the key and all keys below it.
        influence: treatment of the key.
        says: explanation for the user: its use in the config, why it has no effect, or the effect of ignoring it.
        reader: reader that checks and converts the value.
        default: the trainer's default value.
        argument: the engine argument that receives the value unchanged, if any.
        off: values with which an unsupported key has no effect.
    """

    path: str
    influence: Influence
    says: str
    reader: Reader[Any] | None = None
    default: Any = None
    argument: str | None = None
    off: tuple[Any, ...] = ()

    def influence_of(self, value: Any) -> Influence:
        """Return the treatment of the key with this value. An unsupported key that is switched off has no effect."""
        return Influence.NEUTRAL if self.influence is Influence.UNSUPPORTED and value in self.off else self.influence


def honoured(path: str, reader: Reader[Any], default: Any, says: str) -> TrainerKey:
    """Return a key that the config takes into account."""
    return TrainerKey(path, Influence.HONOURED, says, reader, default)


def argument(path: str, reader: Reader[Any], default: Any, name: str | None = None) -> TrainerKey:
    """Return a key that becomes the engine argument `name`; the default name is the last part of `path`."""
    name = name or path.rpartition(".")[2]
    return TrainerKey(path, Influence.HONOURED, f"engine argument {name}", reader, default, name)


def unsupported(path: str, reader: Reader[Any] | None, default: Any, off: tuple[Any, ...], says: str) -> TrainerKey:
    """Return a key that the config can't express, with the values `off` that have no effect."""
    return TrainerKey(path, Influence.UNSUPPORTED, says, reader, default, off=off)


def neutral(says: str, *paths: str) -> tuple[TrainerKey, ...]:
    """Return keys that do not affect generation, all for the reason `says`."""
    return tuple(TrainerKey(path, Influence.NEUTRAL, says) for path in paths)


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
    def of(
        cls, trainer: str, keys: Iterable[TrainerKey], defaults: Mapping[str, Any], shared: Collection[str] = ()
    ) -> KeyRegistry:
        """Return the registry of `keys`, with `defaults` (path -> value) of another version or kind of the trainer."""
        found: dict[str, TrainerKey] = {}
        for key in keys:
            assert key.path not in found, f"{key.path} has two entries"
            found[key.path] = key
        for path, default in defaults.items():
            found[path] = replace(found[path], default=default)
        return cls(trainer, found, shared)

    def find(self, path: str) -> TrainerKey | None:
        """Return the entry for `path`, or the nearest entry above it that includes all keys below; else None."""
        if path in self.keys:
            return self.keys[path]
        parts = path.split(".")
        for length in range(len(parts), 0, -1):
            above = ".".join(parts[:length])
            if f"{above}.*" in self.keys:
                return self.keys[f"{above}.*"]
            if above in self.keys and self.keys[above].reader is mapping:
                return self.keys[above]
        return None

    def holds(self, path: str) -> bool:
        """Return whether keys below `path` are known."""
        return any(known.startswith(f"{path}.") for known in self.keys)

    def has_influence_below(self, path: str) -> bool:
        """Return whether a key below `path` can affect generation."""
        return any(
            known.startswith(f"{path}.") and key.influence is not Influence.NEUTRAL for known, key in self.keys.items()
        )

    def instead_of(self, path: str) -> str:
        """Return the remedy for an unknown key: a known word similar to the first wrong part of `path`."""
        above, wrong, known = self._wrong_part(path)
        return did_you_mean(wrong, known).replace("did you mean '", f"did you mean '{above}")

    def misspelt(self, path: str, written: Sequence[str]) -> str | None:
        """Return the key that `path` probably misspells, among keys that affect generation and are not in `written`."""
        parent, _, name = path.rpartition(".")
        known = {
            key.path.rpartition(".")[2]: key.path
            for key in self.keys.values()
            if key.influence is not Influence.NEUTRAL and key.path.rpartition(".")[0] == parent
        }
        close = difflib.get_close_matches(name, known, n=1, cutoff=ALIKE)
        return known[close[0]] if close and known[close[0]] not in written else None

    def _wrong_part(self, path: str) -> tuple[str, str, set[str]]:
        above = ""
        for part in path.split("."):
            known = {key.removeprefix(above).split(".")[0] for key in self.keys if key.startswith(above)} - {"*"}
            if part not in known:
                break
            above += f"{part}."
        return above, part, known


def read(key: TrainerKey, value: Any, where: str) -> Any:
    """Return the value of a key, converted by the key's reader.

    Raises:
        UserError: if the reader rejects the value. The error names the file `where`.
    """
    if key.reader is None:
        return value
    try:
        return key.reader(value)
    except ValueError as error:
        raise UserError(
            f"{where}: {key.path}: {shown(value)} is not {error}",
            f"correct it there, or add {key.path}=VALUE to the command",
        ) from None
