"""The config of TRL's settings has TRL's own values, which TRL's code gave for drawn settings (studies/oracles)."""

import json
import lzma
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rollout_bench.core.errors import UserError
from rollout_bench.trainers.settings import KeyRegistry, TrainerFile
from rollout_bench.trainers.trl import trl_config, trl_cycle

pytestmark = pytest.mark.slow

ORACLES = Path(__file__).parents[3] / "studies" / "oracles"
TABLES = {"1.0": "trl-1.0.0.jsonl.xz", "1.16": "trl-1.16.0.jsonl.xz"}

OLDER_ANSWERS = 256
"""Default of max_completion_length up to TRL 1.9."""

REFUSED = {
    "is not a mapping": lambda row: isinstance(row["settings"].get("generation_kwargs"), str),
    "generation_kwargs.n: 1 overrides": lambda row: row["mode"] == "server",
}
"""Part of a refusal -> whether a row may get it."""

NOT_MEASURED = {
    "model",
    "seed",
    "distributed_executor_backend",
    "enable_sleep_mode",
    "quantization",
    "host",
    "port",
    "uvicorn_log_level",
    "weight_transfer_config",
    "max_logprobs",
    "worker_extension_cls",
    "revision",
    "speculative_config",
    "enable_scale_out",
    "max_model_len",
}
"""TRL's engine arguments that a config says in another way, seen to below, or that leave the load as it is."""

TOLD = {
    "min_p": ("min_p = ", "generation_kwargs = "),
    "repetition_penalty": ("repetition_penalty = ", "generation_kwargs = "),
    "stop": ("generation_kwargs = ",),
    "min_tokens": ("generation_kwargs = ",),
    "structured_outputs": ("vllm_structured_outputs_regex = ",),
    "structured_outputs_regex": ("vllm_structured_outputs_regex = ",),
}
"""Sampling parameter -> its words in the account, where it says what it does not support."""

NEUTRAL = {
    "min_p": (0.0, None),
    "repetition_penalty": (1.0,),
    "structured_outputs_regex": (None,),
}
"""Sampling parameter -> values with which it has no effect."""

VLLM_DEFAULTS = {
    "dtype": "auto",
    "kv_cache_dtype": "auto",
    "enforce_eager": False,
    "trust_remote_code": False,
    "model_impl": "auto",
}
"""Engine argument -> vLLM's own value."""


def facts(version: str) -> Iterator[dict[str, Any]]:
    with lzma.open(ORACLES / TABLES[version], "rt") as lines:
        yield from map(json.loads, lines)


def compared(ours: dict[str, Any], row: dict[str, Any], version: str) -> dict[str, tuple[Any, Any]]:
    """Return name -> (ours, TRL's) of every value that a config has."""
    (load,) = ours["workload_settings"].values()
    arguments, trls, sampling = load["engine_args"], row["arguments"], row["sampling"]
    length = trls["max_model_len"] if trls.get("max_model_len") else load["prompt_tokens"] + load["output_tokens"]
    found = {
        "prompts": (load["prompts"], row["prompts"]),
        "sequences": (load["prompts"] * load["samples_per_prompt"], row["sequences"]),
        "engines": (ours["rollout"]["replicas"], row["engines"]),
        "output_tokens": (load["output_tokens"], sampling["max_tokens"]),
        "temperature": (load["temperature"], sampling["temperature"]),
        "top_p": (load["top_p"], sampling["top_p"]),
        "top_k": (load["top_k"], sampling["top_k"] or -1),
        "max_model_len": (arguments["max_model_len"], length),
        "fp16": ("fp16" in ours["quants"], trls.get("dtype") == "float16"),
    }
    if row["mode"] == "colocate":
        share = row["sequences"] // row["engines"]
        found["sequences of an engine"] = (share, row["sequences_of_an_engine"])
        found["router"] = (ours["rollout"]["router"], "round_robin" if row["torn"] else "sticky")
    for name in (arguments.keys() | trls.keys()) - NOT_MEASURED:
        default = VLLM_DEFAULTS.get(name)
        found[name] = (arguments.get(name, default), trls.get(name, default))
    if version == "1.0" and row["mode"] == "colocate":  # it does not pass it on to the engine
        found.pop("trust_remote_code", None)
    if found["fp16"][0]:
        found["dtype"] = (arguments.get("dtype"), "float16")
    return found


@pytest.mark.parametrize("version", sorted(TABLES))
def test_every_value_is_trls_or_refused_with_a_reason(version: str):
    wrong: list[Any] = []
    refused = held = 0
    for row in facts(version):
        drawn = dict(row["settings"])
        if version == "1.0":
            drawn.setdefault("max_completion_length", OLDER_ANSWERS)
        words = [f"++{key}={json.dumps(value)}" for key, value in drawn.items()]
        try:
            settings = TrainerFile.read(words, KeyRegistry.of("TRL", row["trainer"]), None)
            made = trl_config(settings, trainer=row["trainer"])
        except UserError as error:
            refused += "refused" not in row
            if "refused" not in row and not any(message in str(error) and may(row) for message, may in REFUSED.items()):
                wrong.append((row["settings"], str(error)))
            continue
        if "refused" in row:
            wrong.append((row["settings"], f"TRL refuses: {row['refused']}"))
            continue
        held += 1
        values = compared(made.config, row, version)
        wrong += [(row["settings"], name, both) for name, both in values.items() if both[0] != both[1]]
        listed = made.account.partition("not supported:")[2].partition("\nwithout")[0]
        for name, words_of in TOLD.items():
            if name in row["sampling"] and row["sampling"][name] not in NEUTRAL.get(name, ()):
                wrong += [] if any(word in listed for word in words_of) else [(row["settings"], name, "is not told")]
        if made.config["quants"] == ["bf16"]:
            sleeps = "sleep 2" in row.get("events", ())
            awake = "cycle" in trl_cycle(settings, made).config
            wrong += [(row["settings"], "sleep", sleeps)] if awake == sleeps else []
    assert not wrong, "\n".join(map(str, wrong[:20]))
    assert held > 150
    assert held > 3 * refused
