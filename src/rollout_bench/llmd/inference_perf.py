"""Profiles of the harness inference-perf: its config files, from version 0.4 to August 2026."""

from __future__ import annotations

import math
from typing import Any

from rollout_bench.contracts.load import PAUSE_S
from rollout_bench.core.readers import count, index, not_negative, positive, switch, text
from rollout_bench.llmd.content import Keys, one_of
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

LOADS = ("constant", "poisson", "concurrent")
LATER = {
    "trace_replay": "use a data set {format: trace} and request_rate: trace",
    "trace_session_replay": "sessions of recorded traces are not replayed here",
}
DATA = ("random", "synthetic", "shared_prefix", "shareGPT")
OTHER_DATA = {
    "conversation_replay": "conversations are not sent here",
    "otel_trace_replay": "recorded sessions are not replayed here",
    "weka_trace_replay": "recorded sessions are not replayed here",
    "visionarena": "pictures are not sent here",
}
NO_PICTURES = "no model that takes pictures, sound or films can be run here so far"
LIMITS = {"ttft": "ttft_ms", "tpot": "tpot_ms", "request_latency": "e2el_ms"}

MOST_TOKENS = 1e9
"""Maximum tokens of a prompt or an answer."""


def meaning_of(keys: Keys, served: MeasuredHere) -> Meaning:
    """Return the workload of a config of inference-perf.

    Raises:
        UserError: if a key is unknown or unsupported, or has an invalid value.
    """
    meaning = Meaning()
    meaning.workload["samples_per_prompt"] = 1
    streams = _server(keys, meaning, served)
    _report(keys, meaning)
    keys.misspelt("load")
    load = keys.section("load")
    kind = load.take("type", one_of(*LOADS, *LATER), "constant")
    if kind in LATER:
        raise load.error("type", f"{kind}: {LATER[kind]}", f"known: {', '.join(LOADS)}")
    load.refuse("adapters (LoRA) are not loaded here", "lora_traffic_split")
    load.refuse("rate sweeps are not supported: write the rates as load.stages", "sweep")
    load.refuse("use a data set {format: trace} and request_rate: trace", "trace")
    load.refuse("a launch is ended by timeouts, and not by breakers", "circuit_breakers")
    keys.refuse("a launch is ended by timeouts, and not by breakers", "circuit_breakers")
    seed = load.take("base_seed", index, -1)
    if seed >= 0:
        meaning.workload["seed"] = seed
    load.neutral("worker_max_tcp_connections")
    interval_s = load.take("interval", not_negative, 1.0)
    stages = _stages(load, kind)
    _limit(load, stages, meaning)
    if kind == "constant":
        meaning.notes.append(
            "load.type: constant: inference-perf itself draws these gaps from the exponential distribution and scales "
            "them to the stage's time; so does request_rate with burstiness 1"
        )
    if any(stage.duration_s is not None for stage in stages):
        meaning.notes.append(
            "load.stages: inference-perf waits for answers that are under way when the time of a stage is over; here "
            "they are cut, and are incomplete"
        )
    _data(keys.section("data"), meaning, max(stage.sent(1, 1) for stage in stages))
    if len(stages) > 1 and interval_s != PAUSE_S:
        problem = f"{interval_s:g}: a pass begins with an idle server here, {PAUSE_S:g} s after the load before it"
        raise load.error("interval", problem, load.instead("interval"))
    load.refuse("a time limit for one request is not supported", "request_timeout")
    keys.finish()  # report an unknown key before a missing one
    if not streams:
        raise keys.error("api.streaming", WHOLE_ANSWERS, "set it to true, in the profile or in overrides")
    arriving(meaning, stages)
    return meaning


def _server(keys: Keys, meaning: Meaning, served: MeasuredHere) -> bool:
    """Write API and sampling into `meaning`, and check model and server; return whether answers are streamed."""
    api = keys.section("api")
    if api.take("type", one_of("completion", "chat"), "completion") == "chat":
        meaning.online["api"] = "chat"
    streams = api.take("streaming", switch, False)
    api.refuse("headers of one workload, priorities among them, are not sent", "headers", "session_id_header_key")
    api.refuse("headers of one workload, priorities among them, are not sent", "session_token_header_key")
    api.refuse("structured output is not supported", "response_format")
    api.neutral("slo_unit", "slo_tpot_header", "slo_ttft_header")  # names of headers, which are not sent
    server = keys.section("server")
    server.take("type", one_of("vllm"), "vllm")
    check_model(server, "model_name", served)
    check_url(server, "base_url", served)
    meaning.workload["ignore_eos"] = server.take("ignore_eos", switch, True)
    server.refuse("set the key with endpoints.<name>.api_key_env", "api_key")
    server.refuse("client certificates are not supported", "cert_path", "key_path")
    tokenizer = keys.section("tokenizer")
    check_model(tokenizer, "pretrained_model_name_or_path", served)
    tokenizer.neutral("trust_remote_code")  # prompts are sent as token ids, or use the served model's tokenizer
    tokenizer.refuse("may be a secret: export HF_TOKEN before you run snakemake", "token")
    tokenizer.finish()  # before a `data` section that is indented too far is reported as missing
    return streams


def _report(keys: Keys, meaning: Meaning) -> None:
    report = keys.section("report")
    goodput = report.section("goodput").section("constraints")
    limits = {name: goodput.take(name, positive, 0.0) * 1000 for name in goodput.names}  # seconds
    meaning.slo = limits_in(goodput, "", limits, LIMITS) if limits else {}
    report.neutral("request_lifecycle", "prometheus", "session_lifecycle")  # every request is recorded
    keys.neutral("storage", "metrics")  # results go to the results folder, with the server's /metrics


def _stages(load: Keys, kind: str) -> list[HeldLoad]:
    found = []
    load.misspelt("stages")
    for keys in load.sections("stages"):
        if kind == "concurrent":
            users, requests = keys.needed("concurrency_level", count), keys.needed("num_requests", count)
            keys.neutral("rate", "duration")  # set by inference-perf while it runs
            found.append(HeldLoad(keys.at("num_requests"), concurrency=users, requests=requests))
            continue
        keys.refuse(f"needs type: concurrent, but type is {kind}", "num_requests", "concurrency_level")
        rate, duration_s = keys.needed("rate", positive), keys.needed("duration", count)
        found.append(HeldLoad(keys.at("rate"), rate=rate, duration_s=duration_s))
    if not found:
        raise load.error("stages", "is missing or empty", "write at least one: {rate: 1, duration: 30}")
    return found


def _limit(load: Keys, stages: list[HeldLoad], meaning: Meaning) -> None:
    """Apply the worker limits to the concurrency of `stages`: number of workers, and requests of each worker."""
    workers = load.take("num_workers", count, 0)
    if not workers and "worker_max_concurrency" in load:
        meaning.notes.append(
            "load.worker_max_concurrency: limits nothing without num_workers, which inference-perf takes from its cores"
        )
    each = load.take("worker_max_concurrency", count, 100)
    for number_of, stage in enumerate(stages):
        most = workers * each
        if workers and stage.sent(1, 1) > most and (stage.concurrency or most + 1) > most:
            if stage.concurrency is not None:
                stages[number_of] = HeldLoad(stage.path, concurrency=most, requests=stage.requests)
            else:
                stages[number_of] = HeldLoad(stage.path, stage.rate, most, stage.duration_s)


def _data(keys: Keys, meaning: Meaning, requests: int) -> None:
    kind = keys.take("type", one_of(*DATA, *OTHER_DATA, "mock"), "mock")
    if kind not in DATA:
        raise keys.error("type", f"{kind}: {OTHER_DATA.get(kind, 'is not read here')}", f"known: {', '.join(DATA)}")
    keys.refuse(NO_PICTURES, "multimodal", "visionarena")
    keys.refuse("random prompts are token ids, without a template", "use_chat_template")
    keys.refuse("write the trace as a data set: {format: trace}", "trace")
    keys.neutral("corpus_file_path")  # the words of prompts, not their number
    load = meaning.workload
    for name in ("shared_prefix", "otel_trace_replay", "weka_trace_replay", "conversation_replay"):
        if name != kind:
            keys.refuse(f"belongs to another type than {kind}", name)
    if kind == "shared_prefix":
        keys.refuse(f"belongs to another type than {kind}", "input_distribution", "output_distribution", "path")
        _shared_prefix(keys.section("shared_prefix"), meaning, requests)
    elif kind == "shareGPT":
        _conversations(keys, meaning)
    else:
        keys.refuse(f"type: {kind} takes no file", "path")
        for theirs, ours in (("input_distribution", "prompt_tokens"), ("output_distribution", "output_tokens")):
            if theirs not in keys:
                raise keys.error(
                    theirs, "is missing", f"write {{min: 10, max: 100, mean: 50, std_dev: 10}} below {theirs}"
                )
            own = keys.section(theirs)
            load[ours] = _lengths(own, shifts=True)


def _conversations(keys: Keys, meaning: Meaning) -> None:
    path = keys.take("path", text, "")
    if not path:
        raise keys.error("path", "is missing", "download the file, and name it here: nothing is fetched for you")
    meaning.workload["dataset"] = {"format": "sharegpt", "path": path}
    for theirs, ours in (("input_distribution", "prompt_tokens"), ("output_distribution", "output_tokens")):
        own = keys.section(theirs)
        own.neutral("mean", "std_dev", "total_count", "type")  # inference-perf uses only the bounds with a data set
        if own.take("min", count, 1) > 1:
            meaning.notes.append(f"data.{theirs}.min: conversations below it are not left out")
        meaning.workload[ours] = own.take("max", count, 1024)


def _shared_prefix(keys: Keys, meaning: Meaning, requests: int) -> None:
    load = meaning.workload
    groups = keys.take("num_unique_system_prompts", count, 0) or keys.take("num_groups", count, 10)
    each = keys.take("num_users_per_system_prompt", count, 0) or keys.take("num_prompts_per_group", count, 10)
    keys.neutral("num_groups", "num_prompts_per_group")
    keys.refuse(NO_PICTURES, "multimodal")
    keys.refuse("conversations are not sent here", "enable_multi_turn_chat")
    if isinstance(keys.peek("system_prompt_len"), dict):
        raise keys.error("system_prompt_len", "is a distribution: shared prefixes have one length", "write a number")
    prefix = keys.take("system_prompt_len", count, 100)
    question = _inline(keys, "question_len", "question_distribution", 50)
    if isinstance(question, dict) and question["distribution"] == "lognormal":
        raise keys.error(
            "question_len", "lognormal: begins behind the shared prefix, and no distribution here does", "write normal"
        )
    load["output_tokens"] = _inline(keys, "output_len", "output_distribution", 50)
    seed = keys.take("seed", index, -1)
    if seed >= 0:
        load["seed"] = seed
    load["prompt_tokens"] = behind(prefix, question)
    load["shared_prefix"] = {"tokens": prefix, **({"groups": groups} if groups > 1 else {})}
    if requests > groups * each:
        meaning.notes.append(
            f"data.shared_prefix: {requests} requests have as many questions; inference-perf asks {groups * each} again"
        )


def _inline(keys: Keys, name: str, legacy: str, default: int) -> int | dict[str, Any]:
    """Return a length: a number or a distribution. A distribution under the older name wins over a number."""
    own = keys.section(legacy) if legacy in keys else None
    if isinstance(keys.peek(name), dict):
        return _lengths(keys.section(name), shifts=False)
    fixed = keys.take(name, count, default)
    keys.neutral(legacy)
    return fixed if own is None else _lengths(own, shifts=False)


def _lengths(keys: Keys, *, shifts: bool) -> int | dict[str, Any]:
    """Return the lengths of a workload for a distribution in a profile.

    Args:
        keys: keys of the distribution.
        shifts: whether a log-normal distribution begins at `min`, as only random prompts do.
    """
    kind = keys.take("type", one_of("normal", "lognormal", "uniform", "fixed"), "normal")
    low, high = keys.take("min", index, 10), keys.take("max", count, 1024)
    mean, std = keys.take("mean", positive, 512.0), keys.take("std_dev", not_negative, 200.0)
    variance = keys.take("variance", not_negative, -1.0)
    keys.neutral("total_count")
    keys.refuse("belongs to type: skew_normal, which is not supported", "skew")
    if variance >= 0:
        std = math.sqrt(variance)
    for name, value in (("mean", mean), ("std_dev", std)):
        if value > MOST_TOKENS:
            raise keys.error(name, f"{value:g} is no number of tokens", f"write {MOST_TOKENS:g} or less")
    if low > high:
        raise keys.error("min", f"{low} is above max {high}", "swap them")
    if kind == "fixed":
        return int(mean)
    low = max(low, 1)
    if kind == "uniform":
        return uniform(low, high)
    if kind == "normal":
        if not low <= mean <= high and low != high:
            raise keys.error("mean", f"{mean:g} lies outside {low} to {high}", "correct it: inference-perf refuses it")
        return bounded(low, high, mean, std)
    if low == high or std == 0:
        return min(max(round(mean), low), high)
    if shifts and low > 1:
        raise keys.error(
            "type",
            "lognormal: begins at min in random data, and no distribution here does",
            "write type: normal or uniform, or min: 1",
        )
    sigma = math.sqrt(math.log(1 + (std / mean) ** 2))
    median = mean / math.exp(sigma**2 / 2)
    spread = {"distribution": "lognormal", "median": round(median, 6), "sigma": round(sigma, 6)}
    return {**spread, "low": low, "high": high}
