"""The load of profiles of the harnesses vllm-benchmark and inferencemax."""

import math
from typing import Any

from rollout_bench.llmd.keys import Keys
from rollout_bench.llmd.meaning import HeldLoad, Meaning, uniform

MOST_OF_FILES = 1024
"""Only this many tokens of a prompt in a file count by default. vLLM skips longer prompts instead."""


def loads(keys: Keys) -> list[HeldLoad]:
    """Complete the meaning of `keys` with API, lengths and burstiness, and return the single load.

    Raises:
        UserError: if keys contradict each other.
    """
    api, by_path = keys["backend"], keys["endpoint"]
    if by_path not in (None, api):
        raise keys.error("endpoint", f"is the API of {by_path}, and backend that of {api}", "name the same in both")
    if api == "chat":
        keys.meaning.online["api"] = "chat"
    if keys["burstiness"] != 1.0 and keys["request-rate"] is not None:
        keys.meaning.online["burstiness"] = keys["burstiness"]
    _lengths(keys, keys.meaning)
    return [HeldLoad(keys["request-rate"], keys["max-concurrency"], requests=keys["num-prompts"])]


def _lengths(keys: Keys, meaning: Meaning) -> None:
    """Write the lengths of prompts and outputs into `meaning`."""
    load, name = meaning.workload, keys["dataset-name"]
    if name == "random":
        ratio, prefix = keys["random-range-ratio"], keys["random-prefix-len"]
        load["prompt_tokens"] = _between(prefix, keys["input-len"] or keys["random-input-len"], ratio[0])
        load["output_tokens"] = _between(0, keys["output-len"] or keys["random-output-len"], ratio[1])
        if prefix:
            load["shared_prefix"] = {"tokens": prefix}
    elif name == "prefix_repetition":
        prefix = keys["prefix-repetition-prefix-len"]
        load["prompt_tokens"] = prefix + (keys["input-len"] or keys["prefix-repetition-suffix-len"])
        load["output_tokens"] = keys["output-len"] or keys["prefix-repetition-output-len"]
        load["shared_prefix"] = {"tokens": prefix, "groups": keys["prefix-repetition-num-prefixes"]}
    else:
        load["dataset"] = {"format": "sharegpt" if name == "sharegpt" else "prompts", "path": keys["dataset-path"]}
        if name == "custom" and (keys["custom-output-len"] or 0) > 0:
            load["output_tokens"] = keys["custom-output-len"]
        meaning.otherwise = {"prompt_tokens": MOST_OF_FILES, "output_tokens": MOST_OF_FILES}
        meaning.notes.append(
            f"dataset-name: {name}: at most {MOST_OF_FILES} tokens of a prompt, and of an answer, count where "
            "prompt_tokens and output_tokens beside profile say nothing else"
        )


def _between(prefix: int, length: int, ratio: float) -> int | dict[str, Any]:
    low, high = math.floor(length * (1 - ratio)), math.ceil(length * (1 + ratio))
    return uniform(prefix + max(low, 1), prefix + max(high, 1))
