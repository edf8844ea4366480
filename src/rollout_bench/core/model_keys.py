"""The keys of a pydantic model, with what each takes, for the reference and for messages."""

import functools
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from pydantic import BaseModel


class Key(NamedTuple):
    """A key: its dotted path (`<name>` is of the user's choice, `[]` a list's item), type, default and meaning."""

    path: str
    takes: str
    default: str
    meaning: str


@functools.cache  # a schema takes a tenth of a second
def keys_of(model: type[BaseModel]) -> tuple[Key, ...]:
    """Return every key of `model` and of the models in it; `default` is "required" where a value must be given."""
    return tuple(_keys(model.model_json_schema()))


def _keys(schema: dict[str, Any]) -> Iterator[Key]:
    for path, field, required in _fields(schema, schema, ""):
        default = "required" if required else field.get("default", "")
        shown = default if isinstance(default, str) else json.dumps(default)
        yield Key(path, _type_words(schema, field), shown, " ".join(str(field.get("description", "")).split()))


def _fields(schema: dict[str, Any], node: dict[str, Any], prefix: str) -> Iterator[tuple[str, dict[str, Any], bool]]:
    for name, field in node.get("properties", {}).items():
        path = f"{prefix}{name}"
        yield path, field, name in node.get("required", [])
        inner, suffix = _inner(schema, field)
        if inner is not None:
            yield from _fields(schema, inner, f"{path}{suffix}.")


def _inner(schema: dict[str, Any], field: dict[str, Any]) -> tuple[dict[str, Any] | None, str]:
    """Return the nested object of a field, and the suffix of the path to it."""
    for option in (field, *field.get("anyOf", [])):
        named = option.get("additionalProperties") or next(iter(option.get("patternProperties", {}).values()), None)
        for inside, suffix in ((option, ""), (named, ".<name>"), (option.get("items"), "[]")):
            if isinstance(inside, dict) and "$ref" in inside:
                return schema["$defs"][inside["$ref"].rsplit("/", 1)[-1]], suffix
    return None, ""


def _type_words(schema: dict[str, Any], field: dict[str, Any]) -> str:
    """Return a field's type as readers know it: its choices, or a name with its bounds."""
    if options := field.get("anyOf") or field.get("oneOf"):
        return " or ".join(dict.fromkeys(_type_words(schema, option) for option in options))
    if "enum" in field:
        return ", ".join(str(value) for value in field["enum"])
    if "const" in field:
        return str(field["const"])
    if "$ref" in field:
        return "mapping"
    if field.get("type") == "array":
        return f"list of {_type_words(schema, field.get('items', {}))}"
    name = str(field.get("type", "any value"))
    bounds = [f"{sign} {field[key]}" for key, sign in _BOUNDS.items() if key in field]
    return " ".join([_TYPES.get(name, name), *bounds])


_TYPES = {
    "object": "mapping",
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
}
_BOUNDS = {
    **dict.fromkeys(("minimum", "ge"), "from"),
    **dict.fromkeys(("exclusiveMinimum", "gt"), "above"),
    **dict.fromkeys(("maximum", "le"), "up to"),
    **dict.fromkeys(("exclusiveMaximum", "lt"), "below"),
}
"""A schema's bounds, and pydantic's names of them for a type with a validator of its own -> words."""
