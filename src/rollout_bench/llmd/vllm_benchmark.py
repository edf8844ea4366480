"""Profiles of the harnesses vllm-benchmark and inferencemax: flags of `vllm bench serve` in vLLM 0.32."""

from __future__ import annotations

import json
import math
from typing import Any

from rollout_bench.core.readers import count, index, not_negative, number, positive, switch, text
from rollout_bench.llmd.content import Keys, one_of
from rollout_bench.llmd.meaning import (
    HeldLoad,
    Meaning,
    MeasuredHere,
    arriving,
    check_model,
    check_url,
    limits_in,
    uniform,
)

API = {"vllm": "completions", "openai": "completions", "openai-chat": "chat"}
"""Value of `backend` -> API of the requests."""

ENDPOINTS = {"/v1/completions": "completions", "/v1/chat/completions": "chat"}

MULTIMODAL = (
    "random-mm-base-items-per-request",
    "random-mm-num-mm-items-range-ratio",
    "random-mm-limit-mm-per-prompt",
    "random-mm-bucket-config",
    "enable-multimodal-chat",
    "asr-max-audio-len-sec",
    "asr-min-audio-len-sec",
)

OF_THE_REPORT = (
    "percentile-metrics",
    "metric-percentiles",
    "save-result",
    "save-detailed",
    "append-result",
    "result-dir",
    "result-filename",
    "metadata",
    "label",
    "disable-tqdm",
    "plot-timeline",
    "timeline-itl-thresholds",
    "plot-dataset-stats",
    "request-id-prefix",
)
"""Flags about output. They have no effect here: every request is recorded, so any percentile can be computed later."""

OF_THE_CLIENT = (
    "executable",
    "tokenizer",
    "tokenizer-mode",
    "trust-remote-code",
    "skip-tokenizer-init",
    "ready-check-timeout-sec",
    "no-stream",
    "no-reranker",
)
"""Flags that only vLLM's client needs: here prompts are sent as token ids, and the launch has its own warm-up."""

SETS = ("random", "sharegpt", "custom", "prefix_repetition")

OF_A_SET = ("random-", "prefix-repetition-", "sharegpt-", "custom-", "dataset-path")
"""Prefixes of flags that apply to only one kind of data set."""

MOST_OF_FILES = 1024
"""Only this many tokens of a prompt in a file count by default. vLLM skips longer prompts instead."""


def flag(value: Any) -> bool:
    """Return whether a flag is set. llm-d writes a flag without a value as `none`."""
    return True if value == "none" else switch(value)


def rate(value: Any) -> float | None:
    """Return requests per second, or None for `inf`."""
    return None if str(value).lower().lstrip(".") == "inf" else positive(value)


def meaning_of(keys: Keys, served: MeasuredHere) -> Meaning:
    """Return the workload of a profile's flags.

    Raises:
        UserError: if a flag is unknown or unsupported, or has an invalid value.
    """
    check_model(keys, "model", served)
    check_model(keys, "served-model-name", served)
    check_url(keys, "base-url", served)
    keys.neutral(*OF_THE_REPORT, *OF_THE_CLIENT)
    keys.refuse("requests are text only here", *MULTIMODAL)
    keys.refuse("adapters (LoRA) are not loaded here", "lora-modules", "lora-assignment")
    keys.refuse(
        "headers of one workload are not supported; endpoints.<name>.headers sets headers for all requests", "header"
    )
    keys.refuse("custom fields are not sent", "extra-body", "chat-template-kwargs")
    keys.refuse("the server is named by models and endpoints", "host", "port")
    keys.refuse("write endpoints.<name>.verify_tls: false instead", "insecure")
    keys.refuse("profiling is a separate mode: modes: [profile]", "profile")
    keys.refuse("beam search is not measured", "use-beam-search")
    keys.refuse("this way of sampling can't be set here", "min-p")
    keys.refuse("this way of sampling can't be set here", "frequency-penalty", "presence-penalty", unless=(0.0,))
    keys.refuse("this way of sampling can't be set here", "repetition-penalty", unless=(1.0,))
    keys.refuse(
        "ramps are not supported: write a list of request_rate",
        *_flags("ramp-up-", "strategy start-rps end-rps"),
    )
    keys.refuse("requests outside the load are not sent", "probe-request-rate")
    keys.refuse("for times from a trace, use a data set and request_rate: trace", "self-timed")
    meaning = Meaning()
    if keys.take("num-warmups", index, 0):
        meaning.notes.append("num-warmups: not sent: a launch warms up with whole passes, as warmup_iterations says")
    api = API[keys.take("backend", one_of(*API), "vllm")]
    by_path = ENDPOINTS[keys.take("endpoint", one_of(*ENDPOINTS), f"/v1/{'chat/' if api == 'chat' else ''}completions")]
    if by_path != api:
        raise keys.error("endpoint", f"is the API of {by_path}, and backend that of {api}", "name the same in both")
    if api == "chat":
        meaning.online["api"] = "chat"
    _lengths(keys, meaning)
    stage = HeldLoad(
        keys.at("num-prompts"),
        rate=keys.take("request-rate", rate, None),
        concurrency=keys.maybe("max-concurrency", count),
        requests=keys.take("num-prompts", count, 1000),
    )
    arriving(meaning, [stage])
    burstiness = keys.take("burstiness", positive, 1.0)
    if burstiness != 1.0 and stage.rate is not None:
        meaning.online["burstiness"] = burstiness
    meaning.workload["ignore_eos"] = keys.take("ignore-eos", flag, False)
    for theirs, ours, reader in (
        ("temperature", "temperature", not_negative),
        ("top-p", "top_p", positive),
        ("top-k", "top_k", number),
        ("logprobs", "logprobs", index),
        ("seed", "seed", index),
    ):
        value: Any = keys.maybe(theirs, reader)
        if value is not None:
            meaning.workload[ours] = int(value) if ours in ("top_k", "logprobs", "seed") else value
    limits = keys.take("goodput", _limits, {})
    meaning.slo = limits_in(keys, "goodput", limits, {"ttft": "ttft_ms", "tpot": "tpot_ms", "e2el": "e2el_ms"})
    return meaning


def _lengths(keys: Keys, meaning: Meaning) -> None:
    """Write the lengths of prompts and outputs into `meaning`."""
    load = meaning.workload
    load["samples_per_prompt"] = 1
    name = keys.take("dataset-name", text, "random")
    if name not in SETS:
        why = "sends pictures, sound or films, and requests are text only here" if "mm" in name else "is not read here"
        raise keys.error("dataset-name", f"{name}: {why}", f"known: {', '.join(SETS)}; or make a trace of it")
    keys.neutral("no-oversample", "disable-shuffle", "skip-chat-template")  # prompts keep the order of the file
    general_in, general_out = keys.take("input-len", count, 0), keys.take("output-len", count, 0)
    if name == "random":
        ratio = keys.take("random-range-ratio", _ratios, (0.0, 0.0))
        prefix = keys.take("random-prefix-len", index, 0)
        prompt, output = keys.take("random-input-len", count, 1024), keys.take("random-output-len", count, 128)
        keys.refuse("requests with several prompts are only for embeddings", "random-batch-size", unless=(1,))
        load["prompt_tokens"] = _between(prefix, general_in or prompt, ratio[0])
        load["output_tokens"] = _between(0, general_out or output, ratio[1])
        if prefix:
            load["shared_prefix"] = {"tokens": prefix}
    elif name == "prefix_repetition":
        prefix = keys.take("prefix-repetition-prefix-len", count, 256)
        own = keys.take("prefix-repetition-suffix-len", count, 256)
        output = keys.take("prefix-repetition-output-len", count, 128)
        load["prompt_tokens"] = prefix + (general_in or own)
        load["output_tokens"] = general_out or output
        load["shared_prefix"] = {"tokens": prefix, "groups": keys.take("prefix-repetition-num-prefixes", count, 10)}
    else:
        _file(keys, meaning, name)
    others = [key for key in keys.names if key.startswith(OF_A_SET)]
    keys.refuse(f"belongs to another data set than {name}", *others)


def _file(keys: Keys, meaning: Meaning, name: str) -> None:
    """Write the data set of a file into `meaning`."""
    path = keys.needed("dataset-path", text)
    meaning.workload["dataset"] = {"format": "sharegpt" if name == "sharegpt" else "prompts", "path": path}
    keys.refuse("the file sets each answer's length; one length for all needs random", "sharegpt-output-len")
    fixed = keys.take("custom-output-len", number, -1.0)
    if name == "custom" and fixed > 0:
        meaning.workload["output_tokens"] = int(fixed)
    meaning.otherwise = {"prompt_tokens": MOST_OF_FILES, "output_tokens": MOST_OF_FILES}
    meaning.notes.append(
        f"dataset-name: {name}: at most {MOST_OF_FILES} tokens of a prompt, and of an answer, count where "
        "prompt_tokens and output_tokens beside profile say nothing else"
    )


def _between(prefix: int, length: int, ratio: float) -> int | dict[str, Any]:
    low, high = math.floor(length * (1 - ratio)), math.ceil(length * (1 + ratio))
    return uniform(prefix + max(low, 1), prefix + max(high, 1))


def _ratios(value: Any) -> tuple[float, float]:
    """Return the relative spread of input and output lengths, from one number or from JSON with both."""
    try:
        read = json.loads(value) if isinstance(value, str) else value
        found = (read["input"], read["output"]) if isinstance(read, dict) else (read, read)
        ratios = number(found[0]), number(found[1])
    except (ValueError, KeyError):
        ratios = (-1.0, -1.0)
    if not all(0 <= ratio < 1 for ratio in ratios):
        raise ValueError('a number from 0 to below 1, or {"input": NUMBER, "output": NUMBER}')
    return ratios


def _limits(value: Any) -> dict[str, float]:
    """Return goodput limits in milliseconds, from `ttft:500 tpot:50` or a list of such pairs."""
    pairs = [str(one).partition(":") for one in (value if isinstance(value, list) else str(value).split())]
    try:
        return {name: positive(limit) for name, _, limit in pairs}
    except ValueError:
        raise ValueError("pairs of a metric and milliseconds, as ttft:500 tpot:50") from None


def _flags(beginning: str, ends: str) -> tuple[str, ...]:
    return tuple(beginning + end for end in ends.split())
