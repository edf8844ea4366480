"""Whatever the schema of the config forbids is refused in two lines that name where it stands."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import yaml
from planned import REPOSITORY

from rollout_bench.core.errors import UserError
from rollout_bench.plan.config import Config
from rollout_bench.plan.config_file import read_config

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


def refused(wrong: Wrong) -> str:
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
    assert {str(wrong): said for wrong in cases if (said := refused(wrong))} == {}
