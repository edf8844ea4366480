"""The keys of a profile. A reader takes each key by name; a remaining key is an error, so none is dropped silently."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from rollout_bench.core.errors import UserError, did_you_mean, near_miss, shown
from rollout_bench.core.readers import Reader, count, positive

_Value = TypeVar("_Value")

NOTHING: tuple[Any, ...] = (None, False, [], {}, "")
"""Values with which an unsupported key has no effect."""


def whole_or_list(value: Any) -> list[int]:
    """Return a whole number from 1 up, or a list of such numbers, as a list."""
    return [count(one) for one in (value if isinstance(value, list) else [value])] or _none()


def rate_or_list(value: Any) -> list[float]:
    """Return a number above 0, or a list of such numbers, as a list."""
    return [positive(one) for one in (value if isinstance(value, list) else [value])] or _none()


def _none() -> Any:
    raise ValueError("a number, or a list of at least one")


def one_of(*words: str) -> Reader[str]:
    """Return a reader that accepts one of `words`."""

    def reader(value: Any) -> str:
        if value not in words:
            raise ValueError(f"known here ({', '.join(words)})")
        return str(value)

    return reader


class Keys:
    """The keys of one mapping in a profile."""

    def __init__(self, content: Mapping[str, Any], where: str, path: str = "", asked: set[str] | None = None) -> None:
        """Make the keys of a mapping.

        Args:
            content: the mapping.
            where: name of the profile in messages.
            path: path of the mapping in the profile.
            asked: set that collects the paths of all supported keys that a reader takes, here and below.
        """
        self._left = {str(key): value for key, value in content.items()}
        self.where, self._path = where, path
        self.asked = set() if asked is None else asked
        self._known: set[str] = set()
        self._inner: list[Keys] = []

    def __contains__(self, key: str) -> bool:
        """Return whether the key has a value other than null and is not taken yet."""
        return self._left.get(key) is not None

    def peek(self, key: str) -> Any:
        """Return the value of a key without taking it."""
        return self._left.get(key)

    @property
    def names(self) -> list[str]:
        """The keys that are not taken yet."""
        return list(self._left)

    def at(self, key: str) -> str:
        """Return the path of `key` from the top of the profile."""
        return f"{self._path}.{key}".lstrip(".")

    def _ask(self, *keys: str) -> None:
        self._known.update(keys)
        self.asked.update(map(self.at, keys))

    def misspelt(self, key: str) -> None:
        """Raise `UserError` if `key` is missing and a similar key, not taken yet, may be a misspelling of it."""
        near = None if key in self._left else near_miss(key, self._left)
        if near is not None:
            raise self.error(near, "there is no such key", f"did you mean '{key}'?")

    def error(self, key: str, problem: str, remedy: str) -> UserError:
        """Return an error about a key, with the key's path."""
        return UserError(f"{self.where}: {self.at(key)}: {problem}", remedy)

    def take(self, key: str, reader: Reader[_Value], default: Any) -> _Value:
        """Take a key and return its value, or `default` if the key is missing or null.

        Raises:
            UserError: if the reader rejects the value.
        """
        self._ask(key)
        value = self._left.pop(key, None)
        if value is None:
            return default  # type: ignore[no-any-return]
        try:
            return reader(value)
        except ValueError as error:
            beside = "; several loads are written beside it, as online: {request_rate: [1, 2]}"
            raise self.error(
                key,
                f"{shown(value)} is not {error}",
                f"correct it in the profile, or in overrides{beside if isinstance(value, list) else ''}",
            ) from None

    def maybe(self, key: str, reader: Reader[_Value]) -> _Value | None:
        """Take a key and return its value, or None if the key is missing."""
        return self.take(key, reader, None)

    def needed(self, key: str, reader: Reader[_Value]) -> _Value:
        """Take a required key and return its value; raise `UserError` if the key is missing."""
        if key not in self:
            raise self.error(key, "is missing", "write it into the profile: the load is not defined without it")
        return self.take(key, reader, None)

    def section(self, key: str) -> Keys:
        """Take a key and return the keys below it; empty if the key is missing."""
        self._ask(key)
        value = self._left.pop(key, None)
        if value is not None and not isinstance(value, Mapping):
            raise self.error(key, f"{shown(value)} is not a mapping", "write keys below it")
        inner = Keys(value or {}, self.where, self.at(key), self.asked)
        self._inner.append(inner)
        return inner

    def sections(self, key: str) -> list[Keys]:
        """Take a list of mappings and return the keys of each entry; empty if the key is missing."""
        self._ask(key)
        value = self._left.pop(key, None)
        if value is not None and (not isinstance(value, list) or not all(isinstance(one, Mapping) for one in value)):
            raise self.error(key, f"{shown(value)} is not a list of mappings", "write a list whose entries have keys")
        inner = [
            Keys(one, self.where, f"{self.at(key)}[{number}]", self.asked) for number, one in enumerate(value or [])
        ]
        self._inner += inner
        return inner

    def inside(self, content: Mapping[str, Any], path: str) -> Keys:
        """Return the keys of `content`, a mapping that is already taken. `path` is its path below these keys."""
        return Keys(content, self.where, self.at(path), self.asked)

    def neutral(self, *keys: str) -> None:
        """Take keys without effect on the load, with all keys below them."""
        self._ask(*keys)
        for key in keys:
            self._left.pop(key, None)

    def refuse(self, reason: str, *keys: str, unless: tuple[Any, ...] = ()) -> None:
        """Take unsupported keys.

        Args:
            reason: why they are not supported, in words that can follow the key.
            keys: names of the keys.
            unless: values, besides `NOTHING`, with which a key has no effect.

        Raises:
            UserError: if one of the keys has another value.
        """
        self._known.update(keys)
        for key in keys:
            value = self._left.pop(key, None)
            if value not in NOTHING and value not in unless:
                raise self.error(key, f"{shown(value)}: {reason}", self.instead(key))

    def instead(self, key: str) -> str:
        """Return the remedy for an unsupported key."""
        # Inside {} YAML reads [ as the start of a list.
        path = f"'{self.at(key)}'" if "[" in self.at(key) else self.at(key)
        return f"if the load is the same without it, remove it with overrides: {{{path}: null}}"

    def finish(self) -> None:
        """Raise `UserError` if a key is not taken, here or below."""
        for key in self._left:
            raise UserError(f"{self.where}: {self.at(key)}: there is no such key", did_you_mean(key, self._known))
        for inner in self._inner:
            inner.finish()
