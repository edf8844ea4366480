"""The config's schema and the reference tables, derived from the models that validate configs and records."""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import BaseModel

from rollout_bench.contracts.load import LogNormal, Normal, Uniform
from rollout_bench.contracts.modes import MODES
from rollout_bench.contracts.record import Failure, Record, SequenceRow
from rollout_bench.core.mappings import grouped
from rollout_bench.numbers.registry import NUMBERS
from rollout_bench.plan.config import Config

LENGTHS: tuple[type[BaseModel], ...] = (Uniform, Normal, LogNormal)


def config_schema() -> str:
    """Return the JSON schema of the config."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Config.model_json_schema()}
    return json.dumps(schema, indent=2) + "\n"


def config_table() -> str:
    """Return every key of the config as CSV: type, default, meaning. `<name>` is a name of the user's choice."""
    lengths = grouped((row, kind.__name__.lower()) for kind in LENGTHS for row in _rows(kind))
    of_lengths = [
        (f"<length>.{name}", *row[:-1], f"{row[-1]} Of {', '.join(of)}.")
        for (name, *row), of in lengths.items()
        if name != "distribution"
    ]
    return _csv(_KEYS, [*_rows(Config), *of_lengths])


def modes_table() -> str:
    """Return every mode as CSV: its measurement, its page, and an example config."""
    return _csv(("mode", "measures", "page", "example"), [(m.name, m.title, m.page, m.example) for m in MODES.values()])


def records_table() -> str:
    """Return every field of a launch's files as CSV; for a single mode only the fields that not all records have."""
    parts: list[tuple[str, type[BaseModel]]] = [
        ("launch-<i>.json", Record),
        *((f"launch-<i>.json of {mode.name}", mode.part("record", "RECORD", Record)) for mode in MODES.values()),
        ("launch-<i>.sequences.jsonl.gz", SequenceRow),
        *((f"launch-<i>{m.side_files[0]}", row) for m in MODES.values() if (row := m.part("record", "ROWS"))),
        ("results/failures/<mode>/<experiment>/launch-<i>.json", Failure),
    ]
    of_all = set(_rows(Record))
    rows = ((file, row) for file, model in parts for row in _rows(model))
    return _csv(("file", *_KEYS), [(file, *row) for file, row in rows if " of " not in file or row not in of_all])


def numbers_table() -> str:
    """Return every number as CSV: its name, the better direction, its definition."""
    header = ("number", "unit", "better", "heading", "of its speed-up", "mode", "definition")
    return _csv(
        header, [(n.name, n.unit, n.better, n.header, n.speedup, n.mode, n.definition) for n in NUMBERS.values()]
    )


def commands_text(helps: dict[str, str], rules: str) -> str:
    """Return `--help` of every command, and the workflow's rules."""
    said = {"snakemake --list-rules": rules, **{f"{name} --help": text for name, text in helps.items()}}
    return "\n\n".join(f"$ {command}\n{text.strip()}" for command, text in said.items()) + "\n"


_KEYS = ("key", "type", "default", "meaning")


def _csv(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue()


def _rows(model: type[BaseModel]) -> Iterator[tuple[str, ...]]:
    schema = model.model_json_schema()
    for path, field, required in _fields(schema, schema, ""):
        default = "required" if required else field.get("default", "")
        shown = default if isinstance(default, str) else json.dumps(default)
        yield path, _type(schema, field), shown, " ".join(str(field.get("description", "")).split())


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


def _type(schema: dict[str, Any], field: dict[str, Any]) -> str:
    if options := field.get("anyOf") or field.get("oneOf"):
        return " or ".join(dict.fromkeys(_type(schema, option) for option in options))
    if "enum" in field:
        return ", ".join(str(value) for value in field["enum"])
    if "const" in field:
        return str(field["const"])
    if "$ref" in field:
        return "mapping"
    if field.get("type") == "array":
        return f"list of {_type(schema, field.get('items', {}))}"
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
_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
