"""Overrides of a profile's keys, in the syntax of llm-d-benchmark's -o or of the config."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from copy import deepcopy
from typing import Any

import yaml

from rollout_bench.core.errors import UserError, did_you_mean, near_miss, shown

_PART = re.compile(r"[^.\[\]]+")

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
    if overrides is None or overrides == "":
        return {}
    if isinstance(overrides, str):
        pairs = [part.partition("=") for part in overrides.split(",") if part.strip()]
        if any(not equals or not key.strip() for key, equals, _ in pairs):
            quotes = "; in {} a key that has [ is quoted, or is written load.stages.0.rate" if "[" in overrides else ""
            raise UserError(
                f"{where}: {shown(overrides)} are not overrides", f"write {{KEY: VALUE}}, or KEY=VALUE,...{quotes}"
            )
        names = [key.strip() for key, _, _ in pairs]
        for name in names:
            if names.count(name) > 1:
                raise UserError(f"{where}.{name}: is written {names.count(name)} times", "write it once")
        overrides = {key.strip(): value.strip() for key, _, value in pairs}
    if not isinstance(overrides, Mapping):
        raise UserError(f"{where}: {shown(overrides)} are not overrides", "write {KEY: VALUE}, or KEY=VALUE,...")
    return {str(key): _value(str(key), value, where) for key, value in overrides.items()}


def _value(key: str, value: Any, where: str) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return yaml.safe_load(value) if value else value
    except (yaml.YAMLError, ValueError):
        raise UserError(f"{where}.{key}: {shown(value)} can't be read", "write it as in a YAML file") from None


def laid_over(
    content: dict[str, Any], overrides: Mapping[str, Any], where: str, asked: Callable[[], Collection[str]] = tuple
) -> dict[str, Any]:
    """Return `content` changed by `overrides`; null removes a key.

    An override's key is a path with dots and indices: `load.stages[0].rate` or `load.stages.0.rate`. A name without a
    dot means the only key with this name at any depth. It may also mean several keys in similar mappings, such as the
    two distributions or the stages of inference-perf. A path may add a key.

    Args:
        content: the keys of a profile.
        overrides: key -> new value.
        where: first words of error messages.
        asked: function that returns the paths of all supported keys, present or not.

    Raises:
        UserError: if the key does not exist, or exists in several different mappings.
    """
    result = deepcopy(content)
    for key, value in overrides.items():
        parts = _parts(key, f"{where}.overrides")
        for place in [parts] if len(parts) > 1 and parts[0] in result else _places(result, key, parts, where, asked):
            _set(result, place, value, key, where)
    return result


def _parts(key: str, where: str) -> Place:
    if re.fullmatch(r"[^.\[\]]+(\.[^.\[\]]+|\[\d+\])*", key) is None:
        raise UserError(f"{where}.{key}: is not a key", "write KEY, a path KEY.KEY, or KEY[0].KEY")
    return tuple(int(part) if part.isdecimal() else part for part in _PART.findall(key))


def _places(
    content: dict[str, Any], key: str, parts: Place, where: str, asked: Callable[[], Collection[str]]
) -> list[Place]:
    """Return the places of a key that is given without its whole path."""
    written = dict(_walk(content))
    found = [place for place in written if place[-len(parts) :] == parts]
    if not found:
        if len(parts) == 1 and not any(isinstance(value, dict | list) for value in content.values()):
            return [parts]  # a flat profile: the override adds an option
        known = sorted(asked())
        if len(parts) > 1 and _dotted(parts) in known:
            return [parts]
        lacking: dict[str, list[str]] = {}
        for path in known:
            lacking.setdefault(path.rpartition(".")[2], []).append(path)
        names = {str(place[-1]) for place in written} | {_dotted(place) for place in written if len(parts) > 1}
        near = near_miss(key, {*names, *lacking})
        remedy = did_you_mean(key, names)
        if near in lacking and near not in names:
            paths = " or ".join(lacking[near])
            remedy = f"a path adds a key: write {paths}" if near == key else f"did you mean {paths}?"
        raise UserError(f"{where}.overrides.{key}: the profile has no such key", remedy)
    siblings = {frozenset(_parent(content, place)) for place in found}
    if len(found) > 1 and len(siblings) > 1:
        places = " and ".join(map(_dotted, found))
        raise UserError(
            f"{where}.overrides.{key}: the profile has {len(found)} such keys in sections of different kinds: {places}",
            f"write the full path: {_dotted(found[0])}",
        )
    return found


def _walk(value: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in inner:
        if isinstance(value, dict):
            yield (*place, key), below
        yield from _walk(below, (*place, key))


def _parent(content: Any, place: Place) -> Any:
    for part in place[:-1]:
        content = content[part]
    return content


def _set(content: dict[str, Any], place: Place, value: Any, key: str, where: str) -> None:
    parent: Any = content
    for number, part in enumerate(place):
        has = part in parent if isinstance(parent, dict) else isinstance(parent, list) and part in range(len(parent))
        last = number == len(place) - 1
        if not has and isinstance(parent, dict) and not last and isinstance(place[number + 1], str):
            parent[part], has = (
                {},
                True,
            )  # parent of an added key; the profile's reader reports unknown keys
        if not has and not (last and isinstance(parent, dict)):
            above = _dotted(place[:number]) or "the profile"
            known = (
                parent if isinstance(parent, dict) else map(str, range(len(parent) if isinstance(parent, list) else 0))
            )
            raise UserError(f"{where}.overrides.{key}: {above} has no {part}", did_you_mean(str(part), map(str, known)))
        if not last:
            parent = parent[part]
    if value is None and isinstance(parent, dict):
        parent.pop(place[-1], None)
    else:
        parent[place[-1]] = value


def _dotted(place: Place) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")
