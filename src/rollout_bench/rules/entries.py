"""Entries after --config: how they are written, what mends one, and whether the config of this folder takes them."""

import copy
import functools
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from rollout_bench.contracts.fields import typed
from rollout_bench.core.errors import UserError
from rollout_bench.core.mappings import laid_over
from rollout_bench.core.places import config_file
from rollout_bench.core.secrets import of_config, without_secrets
from rollout_bench.core.yaml_files import flow
from rollout_bench.plan.config import Config, WorkloadSettings
from rollout_bench.plan.config_file import at_place, read_config
from rollout_bench.plan.engine import probe_engine
from rollout_bench.plan.matrix import expand
from rollout_bench.rules.arguments import load, value_of

GIVES_VALUES = re.compile(r"(.*?(?:write|did you mean|variable:) `?)--config (.*?)(`?\??)", re.DOTALL)
"""A remedy that gives values: what stands before and after them."""


_OPEN = re.compile(r"\b(FILE|VALUE)\b")
"""What a user has to put in."""


def folder_config() -> dict[str, Any]:
    """Return the config of this folder, or the package's."""
    return load(config_file("config.yaml"))


def entries_of(config: Mapping[str, Any]) -> str:
    """Return the entries after --config that give `config`, as a shell takes them."""
    texts = (f"{key}={flow(value)}" for key, value in config.items())
    # in the shell's single quotes, double ones read best
    return shlex.join(text if '"' in text else text.replace("'", '"') for text in texts)


def _is_empty(content: Any) -> bool:
    """Return whether a value has only mappings without values."""
    return isinstance(content, dict) and all(map(_is_empty, content.values()))


def depth(place: str, config: Mapping[str, Any]) -> int:
    """Return how many keys of a place such as `engine_args.dtype: ...` a config has, from the first one on."""
    return len(_keys(place, config))


def _keys(place: str, config: Any) -> list[str]:
    for key, value in config.items() if isinstance(config, Mapping) else ():
        rest = place.removeprefix(str(key))
        if rest != place and rest[:1] in (".", ":", "[", " "):
            return [key, *_keys(rest[1:], value)]
    return []


def as_entry(remedy: str, place: str, config: Mapping[str, Any]) -> str:
    """Return what is typed after --config in place of a `remedy`, such as `write prompts: 8` or `did you mean 'bf16'?`.

    Args:
        remedy: what to do about an error; others are returned as they are.
        place: its problem, which begins with the dotted path of a key.
        config: the values that stand after --config.
    """
    given = copy.deepcopy(typed(without_secrets(config, of_config)[0]))
    if both := re.fullmatch(r"write (models): (\[.*\]) and (model_settings): (\{.*\})", remedy):
        meant = {both[number]: yaml.safe_load(both[number + 1]) for number in (1, 3)}
        return f"write --config {entries_of(laid_over(given, meant))}"
    keys = _keys(place, given)
    merged = keys and (_with_value(remedy, place, given, keys) or _with_meant(remedy, place, given, keys))
    return f"write --config {entries_of(merged)}" if merged else remedy


def _with_value(remedy: str, place: str, given: dict[str, Any], keys: Sequence[str]) -> dict[str, Any] | None:
    """Return the values `given` with that of `write KEY: VALUE`, or `set KEY to NUMBER or more`; None for others.

    The error is at `place`, whose known keys are `keys`.
    """
    holder = at_place(given, keys[:-1])
    held = holder[keys[-1]]
    if least := re.fullmatch(r"set (\w+) to (\d+) or \w+", remedy):
        is_of_load = keys[0] == "workload_settings" and least[1] in WorkloadSettings.model_fields
        if not is_of_load and least[1] != keys[-1]:
            return None
        (at_place(given, keys[:2]) if is_of_load else holder)[least[1]] = int(least[2])
        return given
    found = re.fullmatch(r"write (\w+): ([^;]+)", remedy)
    is_below = found and isinstance(held, dict) and place.startswith(".".join([*keys, f"{found[1]}: is missing"]))
    is_another = found and found[1] in Config.model_fields and found[1] != keys[-1]
    if found is None or not (is_below or is_another or found[1] == keys[-1]):
        return None
    try:
        value = typed(yaml.safe_load(found[2]))
    except yaml.YAMLError:  # words that say more
        return None
    if not is_another:
        (held if is_below else holder)[found[1]] = value
        return given
    del holder[keys[-1]]  # in whose place it is
    return laid_over({key: inner for key, inner in given.items() if not _is_empty(inner)}, {found[1]: value})


def _with_meant(remedy: str, place: str, given: dict[str, Any], keys: Sequence[str]) -> dict[str, Any] | None:
    """Return the values `given` with the word of `did you mean 'WORD'?` in place of the wrong one; None for others."""
    meant = re.fullmatch(r"did you mean '?([^' ]+)'?\?", remedy)
    holder = at_place(given, keys[:-1])
    held = holder[keys[-1]]
    if meant and re.search(r"no such (key|engine argument)$", place):
        renamed = {meant[1] if key == keys[-1] else key: value for key, value in holder.items()}
        holder.clear()
        holder.update(renamed)
        return given
    several = held if isinstance(held, list) else [held]
    wrong = re.search(r"'([^']+)'", place)
    if meant is None or wrong is None or wrong[1] not in several:
        return None
    mended = [meant[1] if one == wrong[1] else one for one in several]
    holder[keys[-1]] = mended if isinstance(held, list) else meant[1]
    return given


def proven(remedy: str, files: Sequence[Path]) -> str:
    """Return a remedy whose values a config takes: `remedy`, or with what else is wrong mended.

    The config is that of this folder, with `files` laid over it. For values that nothing mends it is what is wrong with
    them, and its remedy.
    """
    for _ in range(3):  # of more mistakes the first are told
        found = GIVES_VALUES.fullmatch(remedy)
        entries = shlex.split(found[2]) if found and not _OPEN.search(remedy) else ()
        given = {key: value_of(text) for key, _, text in (entry.partition("=") for entry in entries)}
        error = _refusal(given, files) if given else None
        place = re.match(r"(?:config: )?((\w[\w-]*)[\w.-]*): (.*)", error.problem, re.DOTALL) if error else None
        if not (error and found and place and place[2] in given):
            break
        entry = GIVES_VALUES.fullmatch(as_entry(error.remedy, error.problem.removeprefix("config: "), given))
        if entry is None:
            is_open = re.search("is missing$|cannot be read", place[3])
            return remedy if is_open else f"its key is {place[1]}, where {place[3]}: {error.remedy}"
        remedy = f"{found[1]}--config {entry[2]}{found[3]}"
    return remedy


def _refusal(given: Mapping[str, Any], files: Sequence[Path]) -> UserError | None:
    """Return the error that a config has with the values `given`; None if there is none."""
    try:
        whole = functools.reduce(laid_over, [folder_config(), *map(load, files), given])
        config = read_config(whole, given)
        expand(config, probe_engine(config.engine.python, is_needed=False))
    except UserError as error:
        return error
    return None
