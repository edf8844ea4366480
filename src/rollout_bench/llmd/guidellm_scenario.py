"""Profiles of the harness guidellm: scenarios of guidellm 0.7 and later, with `spec` and `benchmarks`."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from rollout_bench.core.errors import UserError
from rollout_bench.core.readers import count, index, positive, switch, text
from rollout_bench.llmd.content import Keys, one_of, rate_or_list, whole_or_list
from rollout_bench.llmd.meaning import (
    WHOLE_ANSWERS,
    HeldLoad,
    Meaning,
    MeasuredHere,
    arriving,
    behind,
    bounded,
    check_model,
    check_url,
    limits_in,
    uniform,
)
from rollout_bench.llmd.overrides import laid_over

BY_RATE = ("async", "constant", "poisson")
KINDS = ("synchronous", "concurrent", "throughput", *BY_RATE)
API = {"/v1/completions": "completions", "/v1/chat/completions": "chat"}
SPREAD = 5
"""Standard deviations from the mean to a missing bound, as in guidellm."""


def meaning_of(keys: Keys, served: MeasuredHere) -> Meaning:
    """Return the workload of a scenario.

    Raises:
        UserError: if a key is unknown or unsupported, or has an invalid value.
    """
    keys.neutral("metadata")
    keys.misspelt("spec")
    if "spec" not in keys:
        raise keys.error("spec", "is missing", "write the scenario as guidellm 0.7 and later have it, below spec")
    changes = keys.take("benchmarks", _changes, [{}])
    whole = keys.take("spec", _mapping, {})
    runs = [_spec(_changed(whole, change, keys, number), keys, served) for number, change in enumerate(changes)]
    first, _ = runs[0]
    for number, (meaning, _) in enumerate(runs[1:], start=1):
        if (meaning.workload, meaning.online, meaning.slo) != (first.workload, first.online, first.slo):
            raise keys.error(
                f"benchmarks[{number}]",
                "differs from the first one in more than streams, rate and how much is sent",
                "make a profile of each such benchmark",
            )
    stages = [stage for _, own in runs for stage in own]
    arriving(first, stages)
    return first


def _spec(content: dict[str, Any], top: Keys, served: MeasuredHere) -> tuple[Meaning, list[HeldLoad]]:
    """Return the workload of one benchmark, and its loads."""
    keys = top.inside(content, "spec")
    meaning = Meaning()
    _backend(keys.section("backend"), meaning, served)
    _data(keys, meaning)
    keys.neutral("tokenizer", "outputs")  # prompts are sent as token ids; results go to the results folder
    loader = keys.section("data_loader")
    # Details of guidellm's synthetic text.
    loader.neutral("kind", "samples", "num_workers", "prefetch_factor", "shuffle")
    finalizer, mapper = keys.section("data_finalizer"), keys.section("data_column_mapper")
    finalizer.take("kind", one_of("generative"), "generative")
    mapper.take("kind", one_of("generative_column_mapper"), "")
    keys.refuse("prompts are sent unchanged", "data_preprocessors", unless=([{"kind": "encode_media"}],))
    seed = keys.section("seed")
    seed.take("kind", one_of("static"), "static")
    value = seed.take("value", index, -1)
    if value >= 0:
        meaning.workload["seed"] = value
    metrics = keys.section("metrics")
    metrics.take("kind", one_of("generative"), "generative")
    metrics.neutral("sample_size", "prefer_response_metrics", "confidence", "warnings")
    limits = metrics.section("slo")
    names = ("ttft_ms", "tpot_ms", "e2el_ms")
    found = {name: limits.take(name, positive, 0.0) for name in names}
    meaning.slo = limits_in(metrics, "slo", {n: v for n, v in found.items() if v}, {name: name for name in names})
    stages = _profile(keys, keys.section("profile"), meaning)
    keys.finish()
    return meaning, stages


def _backend(keys: Keys, meaning: Meaning, served: MeasuredHere) -> None:
    keys.take("kind", one_of("openai_http"), "openai_http")
    check_url(keys, "target", served)
    check_model(keys, "model", served)
    meaning.workload["ignore_eos"] = True  # guidellm sets it if an output length is given
    if API[keys.take("request_format", one_of(*API), "/v1/chat/completions")] == "chat":
        meaning.online["api"] = "chat"
    if not keys.take("stream", switch, True):
        raise keys.error("stream", WHOLE_ANSWERS, "set it to true, in the profile or in overrides")
    keys.refuse("set the key with endpoints.<name>.api_key_env", "api_key")
    keys.refuse("only the routes of OpenAI's API are supported", "api_routes")
    keys.refuse("custom fields and headers are not sent", "extras")
    keys.refuse("each request has its own length", "max_tokens", "max_completion_tokens")
    keys.refuse("a time limit for one request is not supported", "timeout")
    keys.refuse("each request repeats the conversation", "server_history")
    keys.refuse("requests repeat the answers without the reasoning", "multiturn_reasoning")
    keys.neutral("timeout_connect", "http2", "follow_redirects", "verify", "validate_backend")
    keys.neutral("tool_call_missing_behavior")


def _profile(spec: Keys, keys: Keys, meaning: Meaning) -> list[HeldLoad]:
    """Return the loads of a profile, within its constraints."""
    kind = keys.needed("kind", one_of(*KINDS))
    keys.refuse("ramps are not supported", "rampup_duration")
    keys.refuse("whole passes count; warmup_iterations sets the warm-up", "warmup", "cooldown")
    for key, kinds in (("streams", ("concurrent",)), ("rate", BY_RATE), ("max_concurrency", (*BY_RATE, "throughput"))):
        if kind not in kinds:
            keys.refuse(f"needs kind: {' or '.join(kinds)}, but kind is {kind}", key)
    seconds, requests = _constraints(spec)
    rates = keys.take("rate", rate_or_list, []) if kind in BY_RATE else []
    streams = keys.take("streams", whole_or_list, []) if kind == "concurrent" else []
    most = keys.take("max_concurrency", count, 0) if kind in ("throughput", *BY_RATE) else 0
    if kind in ("async", "constant"):
        meaning.online["burstiness"] = "constant"
    loads: list[tuple[float | None, int | None]]
    if kind == "concurrent":
        loads = [(None, users) for users in streams]
    elif kind == "synchronous":
        loads = [(None, 1)]
    elif kind == "throughput":
        loads = [(None, most or None)]
    else:
        loads = [(rate, most or None) for rate in rates]
    if not loads:
        key = "streams" if kind == "concurrent" else "rate"
        raise keys.error(key, "is missing", f"write {key}, which kind: {kind} takes")
    if seconds and requests and loads[0][0] is None:
        raise spec.error(
            "constraints", "has seconds and a count, and a closed loop ends by one of both here", "take one out"
        )
    return [
        HeldLoad(
            keys.at("streams" if rate is None else "rate"),
            rate=rate,
            concurrency=users,
            duration_s=_nth(seconds, number) if not requests else None,
            requests=_fewest(_nth(requests, number), rate, _nth(seconds, number)),
        )
        for number, (rate, users) in enumerate(loads)
    ]


def _constraints(spec: Keys) -> tuple[list[float], list[int]]:
    """Return the limits of each load: its seconds and its number of requests. A list is empty if there is no limit."""
    seconds: list[float] = []
    requests: list[int] = []
    for keys in spec.sections("constraints"):
        kind = keys.needed("kind", text)
        if kind == "max_duration":
            seconds = keys.needed("seconds", rate_or_list)
        elif kind == "max_requests":
            requests = keys.needed("count", whole_or_list)
        else:
            raise keys.error(
                "kind", f"{kind}: a load ends by time or by number here", "known: max_duration, max_requests"
            )
    if not seconds and not requests:
        raise spec.error(
            "constraints", "has no end", "write {kind: max_duration, seconds: 30}, or max_requests with count"
        )
    return seconds, requests


def _nth(values: list[Any], number: int) -> Any:
    """Return the limit of load `number`. As in guidellm, the last limit also applies to all further loads."""
    return values[min(number, len(values) - 1)] if values else None


def _fewest(requests: int | None, rate: float | None, seconds: float | None) -> int | None:
    if requests is None or rate is None or seconds is None:
        return requests
    return max(1, min(requests, round(rate * seconds)))


def _data(spec: Keys, meaning: Meaning) -> None:
    """Write the lengths of prompts and outputs into `meaning`."""
    sets = spec.sections("data")
    if len(sets) != 1:
        raise spec.error("data", f"has {len(sets)} sources, and a workload has one", "make a profile of each")
    keys, load = sets[0], meaning.workload
    kind = keys.needed("kind", text)
    if kind != "synthetic_text":
        what = "pictures, sound and films are not sent here" if kind in MULTIMODAL else "is not read here"
        raise keys.error("kind", f"{kind}: {what}", "known: synthetic_text; or make a trace of it for dataset")
    keys.refuse("conversations are not sent here", "turns", unless=(1,))
    keys.refuse("tools are not called here", "tool_call_turns", "tools", "server_tool_call_turns")
    keys.neutral(*(f"tool_response_tokens{end}" for end in ("", "_stdev", "_min", "_max")))
    keys.refuse("conversations do not branch here", "branches")
    prefix, groups = _prefix(keys)
    load["samples_per_prompt"] = 1
    prompt, output = _lengths(keys, "prompt_tokens"), _lengths(keys, "output_tokens")
    for name in ("first_prompt_tokens", "first_output_tokens", "delay"):  # of conversations of several turns
        keys.neutral(*(f"{name}{end}" for end in ENDS))
    load["prompt_tokens"] = behind(prefix, prompt)
    load["output_tokens"] = output
    if prefix:
        load["shared_prefix"] = {"tokens": prefix, **({"groups": groups} if groups > 1 else {})}


MULTIMODAL = ("synthetic_image", "synthetic_video", "synthetic_audio")


ENDS = ("", "_stdev", "_min", "_max")


def _lengths(keys: Keys, name: str) -> int | dict[str, Any]:
    mean = keys.needed(name, count)
    std = keys.take(f"{name}_stdev", positive, 0.0)
    low = keys.take(f"{name}_min", count, max(1, round(mean - SPREAD * std)))
    high = keys.take(f"{name}_max", count, round(mean + SPREAD * std))
    if low > high:
        raise keys.error(f"{name}_min", f"{low} is above {high}", f"set {name}_max too")
    return uniform(low, high) if not std else bounded(low, high, mean, std)


def _prefix(keys: Keys) -> tuple[int, int]:
    """Return the number of tokens in a shared prefix, and the number of different prefixes."""
    short = keys.take("prefix_tokens", index, 0), keys.take("prefix_count", count, 1)
    buckets = [
        (one.take("prefix_tokens", index, 0), one.take("prefix_count", count, 1), one.take("bucket_weight", count, 100))
        for one in keys.sections("prefix_buckets")
    ]
    if len(buckets) > 1:
        raise keys.error(
            "prefix_buckets",
            f"has {len(buckets)} buckets, and shared prefixes have one length here",
            "make a profile of each",
        )
    return buckets[0][:2] if buckets else short


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("a mapping")
    return value


def _changes(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not value or not all(one is None or isinstance(one, dict) for one in value):
        raise ValueError("a list of mappings: what each benchmark changes of spec")
    return [one or {} for one in value]


def _changed(spec: dict[str, Any], change: dict[str, Any], keys: Keys, number: int) -> dict[str, Any]:
    """Return `spec` with the changes of one benchmark. The keys of `change` are paths with dots and indices."""
    try:
        return laid_over(deepcopy(spec), {str(key): value for key, value in change.items()}, "")
    except UserError as error:
        problem = error.problem.removeprefix(".overrides.")
        raise keys.error(f"benchmarks[{number}]", problem, error.remedy) from None
