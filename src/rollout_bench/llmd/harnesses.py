"""The harnesses of llm-d-benchmark: the table of each harness's keys, or the reason why there is none."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from rollout_bench.core.errors import UserError
from rollout_bench.core.readers import text
from rollout_bench.llmd import guidellm_scenario, inference_perf, vllm_benchmark
from rollout_bench.llmd.keys import Keys
from rollout_bench.llmd.meaning import HeldLoad, Meaning, MeasuredHere, arriving
from rollout_bench.llmd.template import MODEL, TOKENIZER, URL, is_of_the_launch

TABLES = Path(__file__).with_name("tables")

LOADS: dict[str, Callable[[Keys], list[HeldLoad]]] = {
    "inference-perf": inference_perf.loads,
    "guidellm": guidellm_scenario.loads,
    "vllm-benchmark": vllm_benchmark.loads,
    "inferencemax": vllm_benchmark.loads,
}
"""Harness -> function that completes the keys' meaning, and returns the loads in order."""

HARNESSES: dict[str, dict[str, Any]] = {
    path.stem: yaml.safe_load(path.read_text()) for path in sorted(TABLES.glob("*.yaml"))
}
HARNESSES["inferencemax"] = HARNESSES["vllm-benchmark"]
"""Name -> what tables/README.md explains."""


def meaning_of(
    harness: str, content: Mapping[str, Any], where: str, served: MeasuredHere, asked: dict[str, Any] | None = None
) -> Meaning:
    """Return the workload of a profile.

    Args:
        harness: one of `HARNESSES`.
        content: the keys of the profile.
        where: name of the profile in messages.
        served: models and servers of the config.
        asked: mapping that collects the paths of all supported keys, present or not.

    Raises:
        UserError: if the harness is unsupported, or a key is unknown, unsupported or has an invalid value.
    """
    table = HARNESSES[harness]
    if "refuse" in table:
        named = next((key for key in table["keys"] if key in content), table["keys"][0])
        raise UserError(f"{where}: {named}: {table['refuse']}", table["remedy"])
    runs = []
    for variant in guidellm_scenario.variants(content, where) if harness == "guidellm" else [content]:
        keys = Keys(where, Meaning(**deepcopy(table["always"]), mode=table["mode"]), _readers(served), asked)
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


def _readers(served: MeasuredHere) -> dict[str, Callable[[Any], str]]:
    """Return readers of the keys that name the model or the server, which the config must measure."""

    def naming(known: frozenset[str], what: str, *tokens: str) -> Callable[[Any], str]:
        def reader(value: Any) -> str:
            named = text(value)
            if not is_of_the_launch(named, *tokens) and known.isdisjoint((named, named.rstrip("/"))):
                raise ValueError(what)
            return named

        return reader

    models = f"a model that the config measures: {', '.join(sorted(served.models)) or 'none'}"
    return {
        "model": naming(served.models, models, MODEL, TOKENIZER),
        "url": naming(served.urls, "an endpoint of the config", URL),
    }
