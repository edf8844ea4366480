"""Every wrong config is refused in two lines, before anything runs."""

import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from planned import REPOSITORY, merged_with, planned
from refusals import refusals, refused, write_files
from snakemake.cli import parse_config

from rollout_bench.core.errors import UserError
from rollout_bench.plan.config import Config
from rollout_bench.plan.config_file import check_config_file, read_config
from rollout_bench.plan.engine import probe_engine
from rollout_bench.plan.matrix import expand


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the files that the wrong configs name."""
    found = tmp_path_factory.mktemp("refused")
    write_files(__file__, found)
    return found


@refusals(__file__)
def test_a_wrong_config_is_refused_in_two_lines(
    folder: Path, monkeypatch: pytest.MonkeyPatch, given: Any, problem: str, remedy: str
):
    monkeypatch.chdir(folder)
    with refused(problem, remedy):
        planned(given)


@refusals(__file__, "typed", ("given", "remedy", "then"))
def test_what_a_remedy_says_is_accepted_when_typed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, given: Any, remedy: str, then: Any
):
    monkeypatch.chdir(folder)
    with refused("config: ", remedy):
        planned(given)
    planned(then)


LOAD = "workload_settings: {demo: {online: {prompts_as: text}}}"
THEIRS = "endpoints: {theirs: {url: 'http://127.0.0.1:9/v1', model: m, tokenizer: t/t, verify_tls: false}}"


@pytest.mark.parametrize(
    ("harnesses", "more", "problem", "remedy"),
    [
        ({}, "harness: guidellm", "harness: guidellm is not installed", "requirements/guidellm.in"),
        ({}, "harness: inference-perf", "there is no command inference-perf on PATH", "an environment of its own"),
        (
            {"inference-perf": "0.7.0"},
            f"models: [], harness: inference-perf, {LOAD}, {THEIRS}",
            "verify_tls: false: inference-perf checks every certificate",
            "set harness: rollout-bench",
        ),
    ],
)
def test_a_harness_out_of_use_is_named_with_its_remedy(harnesses: dict[str, str], more: str, problem: str, remedy: str):
    engine = dataclasses.replace(probe_engine(None), harnesses=harnesses)
    with refused(problem, remedy):
        expand(read_config(merged_with(f"{{modes: [online], {more}}}")), engine)


def multiplied(first: str, line: str, levels: int = 9) -> str:
    """Return levels of aliases, each ten times the one before: `line` holds NAME, and ALIASES of the level below."""
    text = f"a: &a {first}\n"
    for level in range(1, levels):
        aliases = ", ".join([f"*{chr(96 + level)}"] * 10)
        text += line.replace("NAME", chr(97 + level)).replace("ALIASES", aliases)
    return text


UNREADABLE = {
    "aliases": (multiplied("[x, x]", "NAME: &NAME [ALIASES]\n"), "holds more than 100,000 values"),
    "merged_keys": (multiplied("{x: 1}", "NAME: &NAME {<<: [ALIASES]}\n"), "holds more than 100,000 values"),
    "one_word": ("launches:3\n", "line 1: launches:3"),
    "itself": ("a: &a [*a]", "holds more than 100,000 values"),
    "deep": (f"a: {'[' * 100_000}{']' * 100_000}", "is nested too deeply for a config"),
    "ten_megabytes": (f"a: {'x' * 10_000_000}", "is larger than 1 MiB"),
    "ten_megabytes_of_two_bytes_each": (f"a: {'ä' * 5_000_000}", "is larger than 1 MiB"),
    "no_such_day": ("a: 2020-13-45", "contains a value that can't be read: month must be in 1..12"),
    "5000_digits": (f"a: {'1' * 5000}", "contains a value that can't be read: Exceeds the limit"),
    "not_a_time": ("a: !!timestamp x", "contains a value that can't be read"),
    "not_utf8": (b"\xff\xfea: 1", "is not UTF-8 text: byte 0 is 0xff"),
    "bracket_open": ("models: [a\nquants: b", "line 1, column 9: is not valid YAML: [ is not closed"),
    "tab": ("models:\n\t- a", "line 2, column 1: is not valid YAML"),
    "a_list": ("- a\n- b", "must have keys at its top"),
    "empty": ("", "is empty: the command that should have written it failed"),
    "a_comment": ("# nothing", "has no keys, only comments"),
    "equals_sign": ("quants = [bf16]", "line 1: this line has no colon after a key"),
    "dash_before_a_key": ("- quants: [bf16]", "is a list, and keys are needed at its top"),
    "empty_mapping": ("quants: {}", "quants: is empty"),
    "glued": ("models: [a]\nquants:[bf16]", "line 2: quants:[bf16]"),
    "dash_glued": ("quants:\n  - bf16\n  -w8a8\nlaunches: 3", "line 3: -w8a8"),
    "a_word": ("just words", "must have keys at its top"),
    "key_twice": ("a: 1\na: 2", "line 2, column 1: key 'a' stands twice"),
    "code": (
        "a: !!python/object/apply:os.system ['touch PWNED']",
        "line 1, column 4: is not valid YAML: could not determine",
    ),
    "template": ("__use_yte__: true\na: ?print('PWNED')", "__use_yte__: a config contains only values, no code"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_an_unreadable_config_is_refused_in_two_lines_at_once(tmp_path: Path, name: str):
    text, problem = UNREADABLE[name]
    path = tmp_path / "config.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    began_s = time.process_time()
    with refused(problem, "  -> ") as raised:
        check_config_file(path)
    assert time.process_time() - began_s < 10
    assert "config.yaml" in raised.value.problem


def test_a_config_may_use_aliases_merged_keys_and_many_keys(tmp_path: Path):
    path = tmp_path / "config.yaml"
    path.write_text("a: &a {x: 1}\nb: {<<: *a, y: [*a, *a]}\nc:\n" + "".join(f"  k{i}: {i}\n" for i in range(10_000)))
    check_config_file(path)
    assert yaml.safe_load(path.read_text())["b"] == {"x": 1, "y": [{"x": 1}, {"x": 1}]}


def test_a_missing_config_file_or_a_folder_is_named(tmp_path: Path):
    for path, problem in ((tmp_path / "none.yaml", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(UserError, match=problem):
            check_config_file(path)


DEFAULT = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
SCHEMA = Config.model_json_schema()
EXAMPLES = {"url": "http://h/v1", "harness": "guidellm", "path": "sanity_concurrent"}
"""Values of required keys whose form the schema does not say."""

BEYOND: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("minimum", "ge"), lambda bound: bound - 1),
    **dict.fromkeys(("maximum", "le"), lambda bound: bound + 1),
    **dict.fromkeys(("exclusiveMinimum", "exclusiveMaximum", "gt", "lt"), lambda bound: bound),
    "minLength": lambda _: "",
    "maxLength": lambda most: "x" * (most + 1),
    "pattern": lambda _: "a b/",
    "enum": lambda _: "no-such-word",
    "minItems": lambda _: [],
}
"""Limit in a schema -> a value just beyond it."""

WHOLE = ("launches", "sweep")
"""Mappings whose values are refused by the name of the mapping, or taken as they are."""

Put = Callable[[Any], Any]
"""From the value of a key to the config with that key."""


class Wrong(NamedTuple):
    """A wrong config: what is wrong with it, where, what the second line must hold."""

    kind: str
    place: str
    remedy: str
    overlay: dict[str, Any]


def options(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield what a part of the schema may be, each of a union."""
    for found in node.get("anyOf") or node.get("oneOf") or [node]:
        if "$ref" in found:
            yield from options(SCHEMA["$defs"][found["$ref"].rpartition("/")[2]])
        elif found is node:
            yield node
        else:
            yield from options(found)


def least(node: dict[str, Any], key: str = "") -> Any:
    """Return the smallest value that a part of the schema takes."""
    first = next(options(node))
    inner = {name: least(first["properties"][name], name) for name in first.get("required", ())}
    usual = inner if first.get("type") == "object" else 1 if first.get("type") in ("integer", "number") else "x"
    return EXAMPLES.get(key, first.get("const", (first.get("enum") or [usual])[0]))


def wrongs(node: dict[str, Any], place: tuple[str, ...], put: Put) -> Iterator[Wrong]:
    """Yield wrong configs of all keys from `place` on."""
    if place:
        yield Wrong("type", ".".join(place), "", put([[1]]))
    for option in options(node):
        held = option.get("additionalProperties") or next(iter(option.get("patternProperties", {}).values()), None)
        for name, inner in option.get("properties", {}).items():
            around = least(option) if place else {}
            yield from wrongs(inner, (*place, name), lambda v, a=around, n=name: put({**a, n: v}))
            misspelt = name + name[-1]
            yield Wrong("misspelt", ".".join((*place, misspelt)), f"'{name}'", put({**around, misspelt: None}))
        if isinstance(held, dict) and held and place[-1] not in WHOLE:
            key = option.get("propertyNames", {}).get("enum", ["demo"])[0]
            yield from wrongs(held, (*place, key), lambda v, k=key: put({k: v}))
        if isinstance(option.get("items"), dict) and option["items"]:
            yield from wrongs(option["items"], (*place, "0"), lambda v: put([v]))
        for limit in BEYOND.keys() & option.keys():
            yield Wrong("range", ".".join(place), "", put(BEYOND[limit](option[limit])))


WRONG = list(wrongs(SCHEMA, (), lambda value: value))


VALUES = {"integer": [1, 8], "number": [0.95, 8, 1e-3], "boolean": [True, False], "null": [None]}


def typable(node: dict[str, Any], place: tuple[str, ...], put: Put) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield configs of all keys from `place` on, with numbers, true, false and null where the schema has them."""
    for option in options(node):
        held = option.get("additionalProperties") or next(iter(option.get("patternProperties", {}).values()), None)
        for name, inner in option.get("properties", {}).items():
            around = least(option) if place else {}
            yield from typable(inner, (*place, name), lambda v, a=around, n=name: put({**a, n: v}))
        if isinstance(held, dict) and held and place[-1] not in WHOLE:
            key = option.get("propertyNames", {}).get("enum", ["demo"])[0]
            yield from typable(held, (*place, key), lambda v, k=key: put({k: v}))
        if isinstance(option.get("items"), dict) and option["items"]:
            yield from typable(option["items"], (*place, "0"), lambda v: put([v]))
        for value in VALUES.get(option.get("type", ""), ()):
            yield ".".join(place), put(value)


def flow(value: Any) -> str:
    """Return a value as people write it after --config."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {flow(inner)}' for key, inner in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(flow, value))}]"
    return value if isinstance(value, str) else json.dumps(value)


def test_whatever_a_file_may_hold_means_the_same_on_the_command_line():
    other, read = [], 0
    for place, overlay in typable(SCHEMA, (), lambda value: value):
        try:
            wanted = read_config(merged_with(overlay))
        except UserError:  # out of the key's range, or at odds with another
            continue
        ((key, value),) = overlay.items()
        typed = parse_config([f"{key}={flow(value)}"])
        try:
            same = read_config(merged_with(typed), typed) == wanted
        except UserError:
            same = False
        other += [] if same else [place]
        read += 1
    assert other == []
    assert read > 250


def said_of(wrong: Wrong) -> str:
    """Return what is wrong with how a config is refused; nothing where it is as it should be."""
    try:
        read_config({**DEFAULT, **wrong.overlay})
    except UserError as error:
        first, second = str(error).split("\n")
        return "" if f"config: {wrong.place}" in first and wrong.remedy in second else str(error)
    return "it is accepted"


@pytest.mark.parametrize("kind", ["misspelt", "type", "range"])
def test_whatever_the_schema_forbids_is_refused_by_its_path(kind: str):
    cases = [wrong for wrong in WRONG if wrong.kind == kind]
    assert len(cases) > 50
    assert {str(wrong): said for wrong in cases if (said := said_of(wrong))} == {}
