"""The config's schema and the reference pages, derived from the models that check what users and engines write."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from rollout_bench.contracts.inside import ScoredRow
from rollout_bench.contracts.load import LogNormal, Normal, Uniform
from rollout_bench.contracts.messages import MessageRow
from rollout_bench.contracts.metrics import METRICS, Metric
from rollout_bench.contracts.modes import MODES
from rollout_bench.contracts.record import Failure, Record, SequenceRow
from rollout_bench.plan.config import Config

LENGTHS: tuple[type[BaseModel], ...] = (Uniform, Normal, LogNormal)

_MADE = "<!-- Made by `make docs` from the code; changes here are lost. -->\n\n"


def config_schema() -> str:
    """Return the JSON schema of the config."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Config.model_json_schema()}
    return json.dumps(schema, indent=2) + "\n"


def config_page() -> str:
    """Return every key of the config: type, default, meaning."""
    return (
        "# The config\n\n"
        + _MADE
        + "Keys of `config.yaml` and of every config laid over it with `--configfile` or `--config`.\n"
        "Lists are replaced by what is laid over them, mappings are merged. `<name>` is a name of your choice.\n"
        "The schema is `workflow/schemas/config.schema.json`.\n\n"
        + _table(Config)
        + _modes()
        + "\n## Engine arguments\n\n"
        + "Arguments of the engine are merged in this order, later ones win: rollout-bench's own"
        " (`enable_prefix_caching: true`, `seed: 0`, `max_model_len`: prompt + output tokens, the longest there are),"
        " the workload's, `engine_args`, the quant's, the model's, the setting's.\n\n"
        "## Lengths\n\n"
        "`prompt_tokens` and `output_tokens` of a workload are a number, or a mapping `{distribution: uniform, ...}`. "
        "[Choose a load](../loads.md) shows each at work.\n" + _lengths()
    )


def _modes() -> str:
    lines = ["", "## Modes", "", "| mode | what it measures | how to use it | example |", "|---|---|---|---|"]
    for mode in MODES.values():
        lines.append(f"| `{mode.name}` | {mode.title} | [{mode.page}](../{mode.page}) | `{mode.example}` |")
    return "\n".join(lines) + "\n"


def _lengths() -> str:
    kinds: dict[str, list[str]] = {}
    for kind in LENGTHS:
        for row in _rows(kind):
            kinds.setdefault(row, []).append(kind.__name__.lower())
    rows = [f"{row} {', '.join(of)} |\n" for row, of in kinds.items() if not row.startswith("| `distribution`")]
    return "\n| key | type | default | meaning | of |\n|---|---|---|---|---|\n" + "".join(rows)


def records_page() -> str:
    """Return every field of what a launch leaves behind."""
    parts: list[tuple[str, type[BaseModel]]] = [
        ("The record: `results/<mode>/<model>_<quant>_<workload>-<key>/launch-<i>.json`", Record),
        *(
            (f"The record of {mode.name} mode: `results/{mode.name}/.../launch-<i>.json`", mode.record)
            for mode in MODES.values()
            if mode.record is not Record
        ),
        ("The side file: `launch-<i>.sequences.jsonl.gz`, one line per sequence", SequenceRow),
        ("The side file of messages mode: `launch-<i>.messages.jsonl.gz`, one line per message", MessageRow),
        ("The side file of drift mode: `launch-<i>.scores.jsonl.gz`, one line per sequence and batch", ScoredRow),
        ("A failure: `results/failures/<mode>/<experiment>/launch-<i>.json`", Failure),
    ]
    text = "# Records\n\n" + _MADE.rstrip() + "\n"
    return text + "".join(f"\n## {title}\n\n{_table(model)}" for title, model in parts)


def metrics_page() -> str:
    """Return every metric: its names, which way is better, what it is."""
    return (
        "# Metrics\n\n"
        + _MADE
        + "A metric is a number of each launch. Tables and `summary.csv` have its mean over valid launches. "
        "One of which more or less is better can be named in `comparison`, and then has a verdict.\n"
        "[Measures of requests](measures.md) has the formulas of those of requests, "
        "[Anatomy of a step](../explanation/anatomy.md) of those of times of sequences, which are read, and in "
        "`summary.csv`, only where a config names them.\n\n"
        "| metric | unit | better | heading | of its speed-up | in `summary.csv` | of | definition |\n"
        "|---|---|---|---|---|---|---|---|\n" + "".join(map(_of_metric, METRICS.values()))
    )


def _of_metric(metric: Metric) -> str:
    of = (
        "times of sequences"
        if metric.of_sequences
        else "requests to a server"
        if metric.of_requests
        else {"": "every launch", "transition": "transitions", "placed": "placements"}[metric.part]
    )
    cells = (f"`{metric.name}`", metric.unit, metric.better, metric.header, metric.speedup)
    return f"| {' | '.join((*cells, f'`{metric.heads}`', of, metric.definition))} |\n"


def commands_page(helps: dict[str, str], rules: str) -> str:
    """`--help` of every command, and the workflow's rules."""
    text = "# Commands\n\n" + _MADE
    text += f"## snakemake\n\nThe workflow's rules, from `snakemake --list-rules`:\n\n```\n{rules.strip()}\n```\n"
    for name, said in helps.items():
        text += f"\n## {name}\n\n```\n{said.strip()}\n```\n"
    return text


def _table(model: type[BaseModel]) -> str:
    return "\n".join(["| key | type | default | meaning |", "|---|---|---|---|", *_rows(model)]) + "\n"


def _rows(model: type[BaseModel]) -> Iterator[str]:
    schema = model.model_json_schema()
    for path, field, required in _fields(schema, schema, ""):
        default = "required" if required else _code(json.dumps(field["default"])) if "default" in field else ""
        meaning = " ".join(str(field.get("description", "")).split()).replace("|", "\\|").replace("<", "&lt;")
        yield f"| `{path}` | {_type(schema, field)} | {default} | {meaning} |"


def _fields(schema: dict[str, Any], node: dict[str, Any], prefix: str) -> Iterator[tuple[str, dict[str, Any], bool]]:
    for name, field in node.get("properties", {}).items():
        path = f"{prefix}{name}"
        yield path, field, name in node.get("required", [])
        inner, suffix = _inner(schema, field)
        if inner is not None:
            yield from _fields(schema, inner, f"{path}{suffix}.")


def _inner(schema: dict[str, Any], field: dict[str, Any]) -> tuple[dict[str, Any] | None, str]:
    """Return the object that a field leads to, and how the path to it goes on."""
    for option in (field, *field.get("anyOf", [])):
        if "$ref" in option:
            return _resolve(schema, option), ""
        for key in ("additionalProperties", "patternProperties"):
            inside = option.get(key)
            if key == "patternProperties" and isinstance(inside, dict):
                inside = next(iter(inside.values()), None)
            if isinstance(inside, dict) and "$ref" in inside:
                return _resolve(schema, inside), ".<name>"
        if "$ref" in option.get("items", {}):
            return _resolve(schema, option["items"]), "[]"
    return None, ""


def _resolve(schema: dict[str, Any], option: dict[str, Any]) -> dict[str, Any]:
    resolved: dict[str, Any] = schema["$defs"][option["$ref"].rsplit("/", 1)[-1]]
    return resolved


def _type(schema: dict[str, Any], field: dict[str, Any]) -> str:
    if options := field.get("anyOf") or field.get("oneOf"):
        return " or ".join(dict.fromkeys(_type(schema, option) for option in options))
    if "enum" in field:
        return ", ".join(_code(str(value)) for value in field["enum"])
    if "const" in field:
        return _code(str(field["const"]))
    if "$ref" in field:
        return "mapping"
    if field.get("type") == "array":
        return f"list of {_type(schema, field.get('items', {}))}"
    names = {
        "object": "mapping",
        "string": "text",
        "integer": "whole number",
        "number": "number",
        "boolean": "true or false",
    }
    bounds = [f"{sign} {field[key]}" for key, sign in _BOUNDS.items() if key in field]
    return " ".join([names.get(str(field.get("type", "any value")), str(field.get("type", "any value"))), *bounds])


_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def _code(text: str) -> str:
    return f"`{text}`"
