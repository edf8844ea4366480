"""The keys of a profile, each asked for by name: what nobody has asked for is an error, so none is dropped silently."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from rollout_bench.core.errors import UserError, did_you_mean, near_miss, shown
from rollout_bench.core.readers import Reader, count, positive

_Value = TypeVar("_Value")

NOTHING: tuple[Any, ...] = (None, False, [], {}, "")
"""Values under which a key that can't be honoured changes nothing."""


def whole_or_list(value: Any) -> list[int]:
    """Return a whole number from 1 up, or a list of them, as a list."""
    return [count(one) for one in (value if isinstance(value, list) else [value])] or _none()


def rate_or_list(value: Any) -> list[float]:
    """Return a number above 0, or a list of them, as a list."""
    return [positive(one) for one in (value if isinstance(value, list) else [value])] or _none()


def _none() -> Any:
    raise ValueError("a number, or a list of at least one")


def one_of(*words: str) -> Reader[str]:
    """Return a reader of one of `words`."""

    def reader(value: Any) -> str:
        if value not in words:
            raise ValueError(f"known here ({', '.join(words)})")
        return str(value)

    return reader


class Keys:
    """The keys of one mapping in a profile."""

    def __init__(self, content: Mapping[str, Any], where: str, path: str = "", asked: set[str] | None = None) -> None:
        """Take the keys of `content`, which stands at `path` in the profile that messages call `where`.

        `asked` takes the paths of all keys that are asked for and not refused, here and below.
        """
        self._left = {str(key): value for key, value in content.items()}
        self.where, self._path = where, path
        self.asked = set() if asked is None else asked
        self._known: set[str] = set()
        self._inner: list[Keys] = []

    def __contains__(self, key: str) -> bool:
        """Return whether the key is written, with another value than null, and not asked for yet."""
        return self._left.get(key) is not None

    def peek(self, key: str) -> Any:
        """Return the value of a key without taking it."""
        return self._left.get(key)

    @property
    def names(self) -> list[str]:
        """The keys that nobody has asked for yet."""
        return list(self._left)

    def at(self, key: str) -> str:
        """Return the path of one of the keys, from the top of the profile."""
        return f"{self._path}.{key}".lstrip(".")

    def _ask(self, *keys: str) -> None:
        self._known.update(keys)
        self.asked.update(map(self.at, keys))

    def misspelt(self, key: str) -> None:
        """Raise `UserError` where a key is missing, and one that nobody has asked for yet may stand for it."""
        near = None if key in self._left else near_miss(key, self._left)
        if near is not None:
            raise self.error(near, "there is no such key", f"did you mean '{key}'?")

    def error(self, key: str, problem: str, remedy: str) -> UserError:
        """Return what is wrong with a key, named by its path."""
        return UserError(f"{self.where}: {self.at(key)}: {problem}", remedy)

    def take(self, key: str, reader: Reader[_Value], default: Any) -> _Value:
        """Return the value of a key that is honoured; the default where it is not written, or null.

        Raises:
            UserError: it is not what the reader wants.
        """
        self._ask(key)
        value = self._left.pop(key, None)
        if value is None:
            return default  # type: ignore[no-any-return]
        try:
            return reader(value)
        except ValueError as error:
            raise self.error(
                key, f"{shown(value)} is not {error}", "correct it in the profile, or in overrides"
            ) from None

    def maybe(self, key: str, reader: Reader[_Value]) -> _Value | None:
        """Return the value of a key that is honoured; None where it is not written."""
        return self.take(key, reader, None)

    def needed(self, key: str, reader: Reader[_Value]) -> _Value:
        """Return the value of a key that has to be there; raise `UserError` where it is not."""
        if key not in self:
            raise self.error(key, "is missing", "write it into the profile: the load is not defined without it")
        return self.take(key, reader, None)

    def section(self, key: str) -> Keys:
        """Return the keys below a key; none where it is not written."""
        self._ask(key)
        value = self._left.pop(key, None)
        if value is not None and not isinstance(value, Mapping):
            raise self.error(key, f"{shown(value)} is not a mapping", "write keys below it")
        inner = Keys(value or {}, self.where, self.at(key), self.asked)
        self._inner.append(inner)
        return inner

    def sections(self, key: str) -> list[Keys]:
        """Return the keys of each entry of a list of mappings; none where it is not written."""
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
        """Return the keys of a mapping that stands at `path` below these, and has been taken already."""
        return Keys(content, self.where, self.at(path), self.asked)

    def neutral(self, *keys: str) -> None:
        """Take keys that change nothing about the load, with all below them."""
        self._ask(*keys)
        for key in keys:
            self._left.pop(key, None)

    def refuse(self, reason: str, *keys: str, unless: tuple[Any, ...] = ()) -> None:
        """Take keys that can't be honoured.

        Args:
            reason: why not, in words that can follow the key.
            keys: their names.
            unless: values, besides `NOTHING`, under which one changes nothing.

        Raises:
            UserError: one of them is written with another value.
        """
        self._known.update(keys)
        for key in keys:
            value = self._left.pop(key, None)
            if value not in NOTHING and value not in unless:
                raise self.error(key, f"{shown(value)}: {reason}", self.instead(key))

    def instead(self, key: str) -> str:
        """Return what to do about a key that can't be honoured."""
        path = f"'{self.at(key)}'" if "[" in self.at(key) else self.at(key)  # in {} YAML takes [ for a list
        return f"take it out, with overrides: {{{path}: null}}, where the load is the same without it"

    def finish(self) -> None:
        """Raise `UserError` for a key that nobody has asked for, here or below."""
        for key in self._left:
            raise UserError(f"{self.where}: {self.at(key)}: there is no such key", did_you_mean(key, self._known))
        for inner in self._inner:
            inner.finish()
