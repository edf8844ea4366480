"""The keys of a profile of llm-d-benchmark: its file, its REPLACE_ENV_ tokens, and overrides."""

import difflib
import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from rollout_bench.core.errors import UserError, did_you_mean, near_miss, value_text
from rollout_bench.core.places import home
from rollout_bench.core.secrets import may_be_secret
from rollout_bench.core.yaml_files import mapping_in, read_text

HOME = Path("config") / "llm-d"
"""Folder of the profiles that are given by name, with a folder for each harness."""

ENDINGS = ("", ".yaml.in", ".yaml", ".yml", ".in")
"""Endings that may be missing in a profile's name, as on llm-d's own command line."""

TOKEN = re.compile(r"REPLACE_ENV_(?P<name>\w+)")

MODEL = "LLMDBENCH_DEPLOY_CURRENT_MODEL"
TOKENIZER = "LLMDBENCH_DEPLOY_CURRENT_TOKENIZER"
MAX_MODEL_LEN = "LLMDBENCH_DEPLOY_CURRENT_MAX_MODEL_LEN"
URL = "LLMDBENCH_HARNESS_STACK_ENDPOINT_URL"

OF_THE_LAUNCH = (MODEL, TOKENIZER, MAX_MODEL_LEN, URL)
"""Variables that each launch fills in, instead of the environment."""

_REMEDY = "mend the profile; docs/llm-d.md shows how each harness writes its own"


def located(harness: str, path: str, where: str) -> Path:
    """Return the file of a profile.

    Args:
        harness: harness of the profile, and name of its folder below `HOME`.
        path: the user's path, absolute or relative to the current folder, or a name in `HOME`. The ending may be
            missing.
        where: first words of error messages.

    Raises:
        UserError: if there is no such file. The error suggests a similar name.
    """
    named = Path(path).expanduser() if path.startswith("~/") else Path(path)
    folders = [Path()] if named.is_absolute() else [Path(), HOME / harness, home() / HOME / harness]
    for place in (f"{folder / named}{ending}" for folder in folders for ending in ENDINGS):
        if os.path.isfile(place):  # noqa: PTH113 (a name that is too long is none)
            return Path(place)
    if os.path.isdir(named):  # noqa: PTH112 (as above)
        raise UserError(f"{where}.path: {path}: is a folder", "name a file in it")
    known = sorted({file.name for folder in folders[1:] for file in folder.glob("*.y*ml*")})
    holds = did_you_mean(named.name, known) if near_miss(named.name, known) else f"it holds: {', '.join(known)}"
    raise UserError(
        f"{where}.path: there is no profile {path} in {HOME / harness}"
        if len(named.parts) == 1
        else f"{where}.path: {path}: there is no such file",
        f"write its path, or the name of a file in {HOME / harness}; {holds}",
    )


def filled(text: str, known: Mapping[str, str], where: str, later: Collection[str] = OF_THE_LAUNCH) -> str:
    """Return a template's text with its tokens replaced by values from `known`, else from the environment.

    A token of `later` without a known value stays, and the launch fills it in. Tokens in comments are ignored.

    Raises:
        UserError: if a token has no value, or if its value may be a secret, because the filled profile is kept.
    """
    lines = [
        ("", "", line) if line.lstrip().startswith("#") else line.partition(" #")
        for line in text.splitlines(keepends=True)
    ]
    names = [found["name"] for code, *_ in lines for found in TOKEN.finditer(code)]
    values = {name: known.get(name) or ("" if name in later else os.environ.get(name, "")) for name in names}
    empty = [name for name, value in values.items() if not value and name not in later]
    if empty:
        tokens = " and ".join(f"REPLACE_ENV_{name}" for name in empty)
        raise UserError(
            f"{where}: {tokens}: empty, because neither a launch nor the environment has {' and '.join(empty)}",
            f"export {' '.join(f'{name}=...' for name in empty)}, or write the value into the profile",
        )
    for name, value in values.items():
        if value and ("\n" in value or may_be_secret(name, value)):
            raise UserError(
                f"{where}: REPLACE_ENV_{name}: may be a secret, but the filled profile is saved with the results",
                "remove it from the profile, and set api_key_env of the endpoint",
            )
    return "".join(
        TOKEN.sub(lambda found: values[found["name"]] or found[0], code) + hash_sign + comment
        for code, hash_sign, comment in lines
    )


def profile_keys(
    path: Path, known: Mapping[str, str], where: str, later: Collection[str] = OF_THE_LAUNCH
) -> dict[str, Any]:
    """Return the keys of a profile, with tokens replaced as in `filled`.

    Raises:
        UserError: if the file can't be read, is no YAML mapping, or has a token without a value.
    """
    what = "profile of llm-d-benchmark"
    text = read_text(path, what, _REMEDY)
    return mapping_in(filled(text, known, f"{where}: {path}", later), path, what, _REMEDY, " (load: ..., data: ...)")


ALIKE = 0.61
"""Minimum similarity of a misspelt override to a key. A lower one takes `seed` for `server`."""

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
        problem = f"{where}: {value_text(overrides)} are not overrides"
        raise UserError(problem, f"write {{KEY: VALUE}}, or KEY=VALUE,...{quotes}")
    return {str(key): _value(str(key), value, where) for key, value in read.items()}


def _value(key: str, value: Any, where: str) -> Any:
    if not isinstance(value, str) or not value:
        return value
    try:
        return yaml.safe_load(value)
    except (yaml.YAMLError, ValueError):
        raise UserError(f"{where}.{key}: {value_text(value)} can't be read", "write it as in a YAML file") from None


def with_overrides(content: dict[str, Any], overrides: Mapping[str, Any], where: str) -> dict[str, Any]:
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
    matching = [place for place in written if place[-len(parts) :] == parts]
    if len(parts) > 1 and (parts[0] in content or not matching):
        return [parts]  # a path adds a key; the profile's reader reports unknown ones
    if not matching and any(isinstance(value, dict | list) for value in content.values()):
        names = sorted({str(place[-1]) for place in written})
        close = difflib.get_close_matches(key.lower(), names, n=1, cutoff=ALIKE)
        remedy = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(names)}"
        raise UserError(
            f"{where}.{key}: the profile has no such key", f"{remedy} (a new key is added by its whole path)"
        )
    if len({written[place] for place in matching}) > 1:
        places = " and ".join(map(_dotted, matching))
        raise UserError(
            f"{where}.{key}: the profile has {len(matching)} such keys in sections of different kinds: {places}",
            f"write the full path: {_dotted(matching[0])}",
        )
    return matching or [parts]


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
