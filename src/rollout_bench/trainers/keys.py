"""What each key of a trainer's settings means for generation: the registry that a trainer fills, and how it is asked.

A key is in exactly one of these groups. A trainer that learns to do more moves an entry to another one.
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
    """What becomes of a key."""

    HONOURED = "honoured"
    UNSUPPORTED = "not supported"
    NEUTRAL = "without influence on generation"
    UNKNOWN = "unknown"


def top_k(value: Any) -> int:
    """Return how many candidates are kept; -1, which trainers also write as 0 or null, keeps all."""
    found = finite(-1 if value is None else value)
    if found is None or not found.is_integer() or found < -1:
        raise ValueError("a whole number from 1 up, or -1 for all")
    return int(found or -1)


def mapping(value: Any) -> dict[str, Any]:
    """Return a mapping; null is an empty one."""
    if value is not None and not isinstance(value, dict):
        raise ValueError("a mapping")
    return {str(key): inner for key, inner in (value or {}).items()}


def numbers(value: Any) -> list[int] | None:
    """Return a list of whole numbers, or None."""
    if value is None:
        return None
    if not isinstance(value, list):
        raise ValueError("a list of whole numbers")
    return [count(one) for one in value]


@dataclass(frozen=True)
class TrainerKey:
    """One key of a trainer's settings, or all below it.

    Attributes:
        path: dotted; `.*` at its end stands for the key and all below it.
        influence: what becomes of it.
        says: how it is honoured; why it changes nothing; what follows from its being left out.
        reader: what its value has to be.
        default: what the trainer has where nothing is written.
        argument: the engine argument that it becomes, where it does so as it is.
        off: values under which a key that is not supported changes nothing.
    """

    path: str
    influence: Influence
    says: str
    reader: Reader[Any] | None = None
    default: Any = None
    argument: str | None = None
    off: tuple[Any, ...] = ()

    def influence_of(self, value: Any) -> Influence:
        """Return what becomes of it where it has this value: what is switched off changes nothing."""
        return Influence.NEUTRAL if self.influence is Influence.UNSUPPORTED and value in self.off else self.influence


def honoured(path: str, reader: Reader[Any], default: Any, says: str) -> TrainerKey:
    """Return a key that the config has."""
    return TrainerKey(path, Influence.HONOURED, says, reader, default)


def argument(path: str, reader: Reader[Any], default: Any, name: str | None = None) -> TrainerKey:
    """Return a key that becomes the engine argument `name`, by default that of its own last part."""
    name = name or path.rpartition(".")[2]
    return TrainerKey(path, Influence.HONOURED, f"engine argument {name}", reader, default, name)


def unsupported(path: str, reader: Reader[Any] | None, default: Any, off: tuple[Any, ...], says: str) -> TrainerKey:
    """Return a key that the config can't have, and under which values that is no matter."""
    return TrainerKey(path, Influence.UNSUPPORTED, says, reader, default, off=off)


def neutral(says: str, *paths: str) -> tuple[TrainerKey, ...]:
    """Return keys that change nothing about generation, all for one reason."""
    return tuple(TrainerKey(path, Influence.NEUTRAL, says) for path in paths)


ALIKE = 0.85
"""Likeness of two words from which on one is taken for the other, misspelt: scripts have keys of their own."""


@dataclass(frozen=True)
class KeyRegistry:
    """All keys of a trainer that are known.

    Attributes:
        trainer: what messages call it.
        keys: path -> key.
        shared: paths that settings of other trainers have as well, so that they don't say whose a file is.
    """

    trainer: str
    keys: Mapping[str, TrainerKey]
    shared: Collection[str] = ()

    @classmethod
    def of(
        cls, trainer: str, keys: Iterable[TrainerKey], defaults: Mapping[str, Any], shared: Collection[str] = ()
    ) -> KeyRegistry:
        """Return the registry of `keys`; `defaults` are those of another version or kind of the trainer."""
        found: dict[str, TrainerKey] = {}
        for key in keys:
            assert key.path not in found, f"{key.path} has two entries"
            found[key.path] = key
        for path, default in defaults.items():
            found[path] = replace(found[path], default=default)
        return cls(trainer, found, shared)

    def find(self, path: str) -> TrainerKey | None:
        """Return the entry of a key: its own, or that of the nearest one above it that stands for all below."""
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
        """Return whether a key below `path` can change generation."""
        return any(
            known.startswith(f"{path}.") and key.influence is not Influence.NEUTRAL for known, key in self.keys.items()
        )

    def instead_of(self, path: str) -> str:
        """Return what to do about a key that there is not: the near miss of the first part that is wrong."""
        above, wrong, known = self._wrong_part(path)
        return did_you_mean(wrong, known).replace("did you mean '", f"did you mean '{above}")

    def misspelt(self, path: str, written: Sequence[str]) -> str | None:
        """Return the key with influence on generation that `path` was most likely meant to be, if it is not there."""
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
    """Return the value of a key as its reader has it.

    Raises:
        UserError: it is something else, naming `where` it stands.
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
