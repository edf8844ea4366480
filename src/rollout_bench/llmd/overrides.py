"""Overrides of a profile's keys, in the syntax of llm-d-benchmark's -o or of the config."""

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
    is_flat = len(parts) == 1 and not any(isinstance(value, dict | list) for value in content.values())
    if not found and (is_flat or (len(parts) > 1 and _dotted(parts) in asked())):
        return [parts]  # an override of a flat profile adds an option; a path adds a key
    if not found:
        raise UserError(f"{where}.overrides.{key}: the profile has no such key", _instead(key, parts, written, asked()))
    siblings = {frozenset(_parent(content, place)) for place in found}
    if len(found) > 1 and len(siblings) > 1:
        places = " and ".join(map(_dotted, found))
        raise UserError(
            f"{where}.overrides.{key}: the profile has {len(found)} such keys in sections of different kinds: {places}",
            f"write the full path: {_dotted(found[0])}",
        )
    return found


def _instead(key: str, parts: Place, written: Collection[Place], known: Collection[str]) -> str:
    """Return the remedy for a key that the profile lacks: a key that it has, or the path of one to add."""
    names = {str(place[-1]) for place in written} | {_dotted(place) for place in written if len(parts) > 1}
    near = near_miss(key, {*names, *(path.rpartition(".")[2] for path in known)})
    paths = " or ".join(path for path in sorted(known) if path.rpartition(".")[2] == near)
    if not paths or near in names:
        return did_you_mean(key, names)
    return f"a path adds a key: write {paths}" if near == key else f"did you mean {paths}?"


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
        known = parent if isinstance(parent, dict) else range(len(parent) if isinstance(parent, list) else 0)
        following = place[number + 1] if number < len(place) - 1 else None
        if part not in known and isinstance(parent, dict) and isinstance(following, str):
            parent[part] = {}  # of an added key; the profile's reader reports unknown keys
        elif part not in known and not (following is None and isinstance(parent, dict)):
            above = _dotted(place[:number]) or "the profile"
            raise UserError(f"{where}.overrides.{key}: {above} has no {part}", did_you_mean(str(part), map(str, known)))
        parent = parent if following is None else parent[part]
    if value is None and isinstance(parent, dict):
        parent.pop(place[-1], None)
    else:
        parent[place[-1]] = value


def _dotted(place: Place) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")
