"""Overrides of a profile's keys, in the syntax of llm-d-benchmark's -o or of the config."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

import yaml

from rollout_bench.core.errors import UserError, did_you_mean, shown

Place = tuple[str | int, ...]
"""Keys and indices that lead to a value."""


def parsed(overrides: Any, where: str) -> dict[str, Any]:
    """Return overrides as a mapping. Text values, as from the command line, are parsed as YAML.

    Args:
        overrides: a mapping, or text in the syntax of llm-d's -o: `min=20,total_count=200`.
        where: first words of error messages.

    Raises:
        UserError: if `overrides` has neither form, sets a key twice, or has an invalid value.
    """
    if isinstance(overrides, str):
        pairs = [part.partition("=") for part in overrides.split(",") if part.strip()]
        for name, times in Counter(name.strip() for name, _, _ in pairs).items():
            if times > 1:
                raise UserError(f"{where}.{name}: is written {times} times", "write it once")
        is_torn = any(not equals or not name.strip() for name, equals, _ in pairs)
        read = overrides if is_torn else {name.strip(): value.strip() for name, _, value in pairs}
    else:
        read = {} if overrides is None else overrides
    if not isinstance(read, Mapping):
        quotes = "; in {} a key that has [ is quoted, or is written load.stages.0.rate" if "[" in str(read) else ""
        problem = f"{where}: {shown(overrides)} are not overrides"
        raise UserError(problem, f"write {{KEY: VALUE}}, or KEY=VALUE,...{quotes}")
    return {str(key): _value(str(key), value, where) for key, value in read.items()}


def _value(key: str, value: Any, where: str) -> Any:
    if not isinstance(value, str) or not value:
        return value
    try:
        return yaml.safe_load(value)
    except (yaml.YAMLError, ValueError):
        raise UserError(f"{where}.{key}: {shown(value)} can't be read", "write it as in a YAML file") from None


def laid_over(content: dict[str, Any], overrides: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return `content` changed by `overrides`; null removes a key.

    An override's key is a path with dots and indices: `load.stages[0].rate` or `load.stages.0.rate`. A name, or the end
    of a path, means the only key with this name at any depth. It may also mean several keys in similar mappings, such
    as the two distributions or the stages of inference-perf. A path may add a key.

    Args:
        content: the keys of a profile.
        overrides: key -> new value.
        where: first words of error messages.

    Raises:
        UserError: if the key does not exist, or exists in several different mappings.
    """
    result = deepcopy(content)
    for key, value in overrides.items():
        for place in _places(result, key, where):
            _set(result, place, value, f"{where}.{key}")
    return result


def _places(content: dict[str, Any], key: str, where: str) -> list[Place]:
    """Return the places that an override's key means."""
    if re.fullmatch(r"[^.\[\]]+(\.[^.\[\]]+|\[\d+\])*", key) is None:
        raise UserError(f"{where}.{key}: is not a key", "write KEY, a path KEY.KEY, or KEY[0].KEY")
    parts: Place = tuple(int(part) if part.isdecimal() else part for part in re.findall(r"[^.\[\]]+", key))
    written = dict(_walk(content))
    found = [place for place in written if place[-len(parts) :] == parts]
    if len(parts) > 1 and (parts[0] in content or not found):
        return [parts]  # a path adds a key; the profile's reader reports unknown ones
    if not found and any(isinstance(value, dict | list) for value in content.values()):
        remedy = did_you_mean(key, {str(place[-1]) for place in written})
        raise UserError(
            f"{where}.{key}: the profile has no such key", f"{remedy} (a new key is added by its whole path)"
        )
    if len({written[place] for place in found}) > 1:
        places = " and ".join(map(_dotted, found))
        raise UserError(
            f"{where}.{key}: the profile has {len(found)} such keys in sections of different kinds: {places}",
            f"write the full path: {_dotted(found[0])}",
        )
    return found or [parts]


def _walk(value: Any, place: Place = ()) -> Iterator[tuple[Place, frozenset[str]]]:
    """Yield the place of each key at any depth, with the keys beside it."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in inner:
        if isinstance(value, dict):
            yield (*place, key), frozenset(value)
        yield from _walk(below, (*place, key))


def _set(content: dict[str, Any], place: Place, value: Any, where: str) -> None:
    parent: Any = content
    for number, part in enumerate(place):
        indices = range(len(parent) if isinstance(parent, list) else 0)
        if not isinstance(parent, dict) and part not in indices:
            problem = f"{where}: {_dotted(place[:number])} has no {part}"
            raise UserError(problem, did_you_mean(str(part), map(str, indices)))
        if number < len(place) - 1:
            parent = parent.setdefault(part, {}) if isinstance(parent, dict) else parent[part]
    if value is None and isinstance(parent, dict):
        parent.pop(place[-1], None)
    else:
        parent[place[-1]] = value


def _dotted(place: Place) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")
