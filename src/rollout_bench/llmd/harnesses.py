"""The harnesses of llm-d-benchmark: the table of each harness's keys, or the reason why there is none."""

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from rollout_bench.core.errors import UserError
from rollout_bench.core.readers import Reader, text
from rollout_bench.llmd.keys import Keys, Meaning
from rollout_bench.llmd.loads import LOADS, arriving, variants
from rollout_bench.llmd.template import TOKEN

TABLES = Path(__file__).with_name("tables")

HARNESSES: dict[str, dict[str, Any]] = {
    path.stem: yaml.safe_load(path.read_text()) for path in sorted(TABLES.glob("*.yaml"))
}
HARNESSES["inferencemax"] = HARNESSES["vllm-benchmark"]
"""Name -> what tables/README.md explains."""

NAMED = {"model": "a model that the config measures: {}", "url": "an endpoint of the config"}
"""Reader of a key that names the model or the server -> description of valid values."""


def meaning_of(harness: str, content: Mapping[str, Any], where: str, measured: Mapping[str, set[str]]) -> Meaning:
    """Return the workload of a profile.

    Args:
        harness: one of `HARNESSES`.
        content: the keys of the profile.
        where: name of the profile in messages.
        measured: `model` and `url` -> the config's models and servers, which a profile may name.

    Raises:
        UserError: if the harness is unsupported, or a key is unknown, unsupported or has an invalid value.
    """
    table = HARNESSES[harness]
    if "refuse" in table:
        named = next((key for key in table["keys"] if key in content), table["keys"][0])
        raise UserError(f"{where}: {named}: {table['refuse']}", table["remedy"])
    readers = {kind: _naming(NAMED[kind], measured[kind]) for kind in NAMED}
    runs = []
    for variant in variants(content, where) if harness == "guidellm" else [content]:
        keys = Keys(where, Meaning(**deepcopy(table["always"]), mode=table["mode"]), readers)
        keys.read(variant, table["keys"])
        runs.append((keys.meaning, LOADS[harness](keys) if harness in LOADS else []))
    first, stages = runs[0][0], [stage for _, own in runs for stage in own]
    for number, (meaning, _) in enumerate(runs):
        if (meaning.workload, meaning.online, meaning.slo) != (first.workload, first.online, first.slo):
            problem = "differs from the first one in more than streams, rate and how much is sent"
            raise UserError(f"{where}: benchmarks[{number}]: {problem}", "make a profile of each such benchmark")
    if stages:
        arriving(first, stages)
    return first


def _naming(wanted: str, known: set[str]) -> Reader[str]:
    """Return a reader of a name that must be one of `known`, with or without a slash at its end."""

    def reader(value: Any) -> str:
        named = text(value)
        if known.isdisjoint((named, named.rstrip("/"))):
            raise ValueError(wanted.format(", ".join(sorted(one for one in known if not TOKEN.match(one))) or "none"))
        return named

    return reader
