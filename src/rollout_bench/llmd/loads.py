"""The harnesses of llm-d-benchmark: the table of each harness's keys, and the loads of those that are supported."""

import math
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

from rollout_bench.core.errors import UserError
from rollout_bench.core.readers import Reader, text
from rollout_bench.core.yaml_files import packaged
from rollout_bench.llmd.aiperf import aiperf
from rollout_bench.llmd.held import HeldLoad, write_arrivals
from rollout_bench.llmd.keys import SERVED, Keys, Meaning, with_first_names
from rollout_bench.llmd.lengths import SPREAD, lengths, mean_of, most_of, turns_of, with_prefix
from rollout_bench.llmd.template import TOKEN, parsed, with_overrides

TABLES = Path(__file__).with_name("tables")

HARNESSES: dict[str, dict[str, Any]] = {path.stem: packaged(path) for path in sorted(TABLES.glob("*.yaml"))}
HARNESSES["inferencemax"] = HARNESSES["vllm-benchmark"]
"""Name -> what tables/README.md explains."""

NAMED = {"model": "a model that the config measures: {}", "url": "an endpoint of the config"}
"""Reader of a key that names the model or the server -> description of valid values."""


CUT = (
    "load.stages: inference-perf waits for answers that are under way when the time of a stage is over; here "
    "they are cut, and are incomplete"
)
STD = "std: is read as std_dev; inference-perf 0.7 refuses it, and earlier ones take 200 in its place"
UNLIMITED = "load.worker_max_concurrency: limits nothing without num_workers, which inference-perf takes from its cores"

SONNET = "dataset-name: sonnet: in earlier versions of vLLM lines of a poem, about as long; here random tokens"

REPLAY_BUFFER = 200
"""Tokens that inference-perf leaves free of a context (`PROMPT_TOKEN_BUFFER`)."""

LEFT_TO_THE_SERVER = {"temperature": 1.0, "top_p": 1.0, "top_k": -1}
"""Sampling of every request here -> its default. Harnesses send what the profile names, and no profile of some can."""

DATA = "data.input_distribution", "data.output_distribution"

MOST_OF_FILES = 1024
"""Only this many tokens of a prompt in a file count by default. vLLM skips longer prompts instead."""


def inference_perf(keys: Keys) -> list[HeldLoad]:
    """Complete the meaning of `keys` with the lengths of prompts and outputs, and return the stages.

    Raises:
        UserError: if keys contradict each other, or the load is not supported.
    """
    stages = [_inference_perf_stage(keys, f"load.stages[{number}].") for number in range(keys["load.stages"])]
    if any(stage.duration_s is not None for stage in stages):
        keys.meaning.notes.append(CUT)
    if keys["data.type"] == "shared_prefix":
        _shared_prefix(keys, max(stage.sent(1, 1) for stage in stages))
    elif keys["data.type"] == "conversation_replay":
        _replayed_conversations(keys)
    elif keys["data.type"] == "shareGPT":
        _conversations(keys)
    else:
        for name, ours in zip(DATA, ("prompt_tokens", "output_tokens"), strict=True):
            if f"{name}.mean" not in keys.found or keys[name] is None:
                raise keys.error(name, "is missing", "write {min: 10, max: 100, mean: 50, std_dev: 10} below it")
            keys.meaning.workload[ours] = _distribution(keys, f"{name}.", shifts=True)
    return stages


def _inference_perf_stage(keys: Keys, path: str) -> HeldLoad:
    """Return a stage; one with a rate has the limit of the workers: their number, and the requests of each."""
    rate, duration_s, users = (keys[f"{path}{name}"] for name in ("rate", "duration", "concurrency_level"))
    if rate and duration_s:  # a request that would not have all of its time is not sent
        duration_s = (int(rate * duration_s) or rate * duration_s) / rate
    stage = HeldLoad(rate, users, duration_s, keys[f"{path}num_requests"])
    if users:  # replaces the workers' limit
        return stage
    workers, each = keys["load.num_workers"], keys["load.worker_max_concurrency"]
    if workers is None:
        keys.meaning.notes += [UNLIMITED] if each and UNLIMITED not in keys.meaning.notes else []
        return stage
    most = workers * (each or 100)
    return replace(stage, concurrency=most) if stage.sent(1, 1) > most else stage


def _conversations(keys: Keys) -> None:
    keys.meaning.workload["dataset"] = {"format": "sharegpt", "path": keys["data.path"]}
    for name, ours in zip(DATA, ("prompt_tokens", "output_tokens"), strict=True):
        # inference-perf uses only the bounds with a data set
        if (keys[f"{name}.min"] or 1) > 1:
            keys.meaning.notes.append(f"{name}.min: conversations below it are not left out")
        keys.meaning.workload[ours] = keys[f"{name}.max"]


def _shared_prefix(keys: Keys, requests: int) -> None:
    path, load = "data.shared_prefix.", keys.meaning.workload
    groups = keys[f"{path}num_unique_system_prompts"] or keys[f"{path}num_groups"] or 10
    each = keys[f"{path}num_users_per_system_prompt"] or keys[f"{path}num_prompts_per_group"] or 10
    prefix, question = keys[f"{path}system_prompt_len"], _length(keys, path, "question")
    load["output_tokens"] = _length(keys, path, "output")
    load["prompt_tokens"] = with_prefix(prefix, question)
    load["shared_prefix"] = {"tokens": prefix, **({"groups": groups} if groups > 1 else {})}
    if keys[f"{path}enable_multi_turn_chat"]:
        _shared_conversations(keys, prefix, question, groups * each, requests)
    elif requests > groups * each:
        keys.meaning.notes.append(
            f"data.shared_prefix: {requests} requests have as many questions; inference-perf asks {groups * each} again"
        )


def _shared_conversations(keys: Keys, prefix: int, question: int | dict[str, Any], users: int, requests: int) -> None:
    """Write `requests` of `users`, who ask one after the other, with their whole conversations."""
    load, path = keys.meaning.workload, "data.shared_prefix.enable_multi_turn_chat"
    load["prompts"], load["prompt_tokens"] = users, with_prefix(2 * prefix, question)
    load["shared_prefix"] |= {"tokens": 2 * prefix}
    load["turns"] = turns_of(keys, path, math.ceil(requests / users), with_prefix(prefix, question), 1)
    keys.meaning.online["conversations"] = "rotating"
    keys.meaning.notes.append(
        f"{path}: each question has the prefix before it, as in inference-perf, whose conversations begin with it in "
        "the first stage, and here in all"
    )


def _replayed_conversations(keys: Keys) -> None:
    """Write the lengths of conversations, which are all open: their next turns are due one after the other."""
    path, load = "data.conversation_replay.", keys.meaning.workload

    def length(name: str, default: int, factor: int = 1) -> int | dict[str, Any]:
        whole = f"{path}{name}"
        return default if keys[whole] is None else _distribution(keys, f"{whole}.", shifts=False, factor=factor)

    shared, most, limit = (
        keys[f"{path}{name}"] for name in ("shared_system_prompt_len", "num_conversations", "max_model_len")
    )
    own, words = length("dynamic_system_prompt_len", 0), length("input_tokens_per_turn", 512)
    turns, answer = length("turns_per_conversation", 10), length("output_tokens_per_turn", 256)
    load |= {"output_tokens": answer, "prompt_tokens": _sum(keys, path, shared, own, words)}
    if shared:
        load["shared_prefix"] = {"tokens": shared}
    grown = shared + most_of(own) + most_of(turns) * (most_of(words) + most_of(answer))
    if grown + REPLAY_BUFFER > limit:
        problem = f"conversations grow to {grown} tokens, and inference-perf drops the oldest beyond {limit}"
        raise keys.error(f"{path}max_model_len", problem, "lower the max of turns_per_conversation, or raise it")
    name = f"{path}turns_per_conversation"
    load["turns"] = turns_of(keys, name, turns, words, length("tool_call_latency_sec", 1, 1000))
    load["prompts"] = most
    keys.meaning.online["conversations"] = "rotating"


def _sum(keys: Keys, path: str, shared: int, own: int | dict[str, Any], words: int | dict[str, Any]) -> Any:
    """Return the lengths of first prompts: a shared part, one of the conversation, and the first words of the user."""
    if isinstance(own, int):
        return with_prefix(shared + own, words)
    if isinstance(words, dict):
        words = round(mean_of(words))
        keys.meaning.notes.append(f"{path}input_tokens_per_turn: the first turn of each conversation has {words}")
    return with_prefix(shared + words, own)


def _length(keys: Keys, path: str, what: str) -> int | dict[str, Any]:
    """Return a length: a number or a distribution. A distribution under the older name wins over a number."""
    for name in (f"{path}{what}_len", f"{path}{what}_distribution"):
        if f"{name}.mean" in keys.found:
            return _distribution(keys, f"{name}.", shifts=False)
    return keys[f"{path}{what}_len"] or 50


def _distribution(keys: Keys, path: str, *, shifts: bool, factor: int = 1) -> int | dict[str, Any]:
    """Return the lengths of a workload for the distribution at `path`, each times `factor`.

    `shifts` says whether a log-normal distribution begins at `min`, and a normal one needs its mean between the bounds,
    as only those of random prompts do.
    """
    kind, low, high, mean, std, variance = (
        keys[f"{path}{name}"] for name in ("type", "min", "max", "mean", "std_dev", "variance")
    )
    if keys[f"{path}std"] is not None:
        std = keys[f"{path}std"]
        keys.meaning.notes += [] if STD in keys.meaning.notes else [STD]
    std = std if variance is None else math.sqrt(variance)
    low, high, mean, std = factor * (10 if low is None else low), factor * high, factor * mean, factor * std
    if low > high:
        raise keys.error(f"{path}min", f"{low} is above max {high}", "swap them")
    if kind == "fixed":
        return max(1, int(mean))
    begins, low, high = low if shifts else 0, max(low, 1), max(high, 1)
    if shifts and kind == "normal" and not low <= mean <= high and low != high:
        outside = f"{mean:g} lies outside {low} to {high}"
        raise keys.error(f"{path}mean", outside, "correct it: inference-perf refuses it")
    if kind in ("normal", "uniform") or low == high or std == 0:
        return lengths(kind if kind == "uniform" else "normal", low, high, mean, std)
    beyond = (mean - begins if mean > begins else 1.0) or 1.0
    sigma = math.sqrt(math.log(1 + (std / beyond) ** 2))
    middle = {"median": round(beyond / math.exp(sigma**2 / 2), 6), "sigma": round(sigma, 6), "beyond": "clipped"}
    # a draw of the beginning itself, which is the least there is, counts as one token more
    offset = {"offset": begins} if begins else {}
    return {"distribution": "lognormal", **middle, **offset, "low": max(low, begins + 1), "high": max(high, begins + 1)}


def benchmarks_of(content: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    """Return a scenario once for each of its benchmarks, with the changes of the benchmark in `spec`.

    Raises:
        UserError: if a benchmark changes a key that `spec` lacks.
    """
    spec, changes = content.get("spec"), content.get("benchmarks")
    if not isinstance(spec, dict) or not isinstance(changes, list):
        return [dict(content)]
    variants = [
        {**content, "spec": with_overrides(spec, parsed(change, place), place)}
        for place, change in ((f"{where}: benchmarks[{number}]", change) for number, change in enumerate(changes))
    ]
    return variants or [dict(content)]


def guidellm(keys: Keys) -> list[HeldLoad]:
    """Complete the meaning of `keys` with the lengths of prompts and outputs, and return the loads of the profile.

    Raises:
        UserError: if keys contradict each other.
    """
    load, data = keys.meaning.workload, "spec.data[0]."
    bucket = f"{data}prefix_buckets[0]." if keys[f"{data}prefix_buckets"] else data
    prefix, groups = keys[f"{bucket}prefix_tokens"], keys[f"{bucket}prefix_count"]
    turns = keys[f"{data}turns"]
    words, first = (f"{data}{name}" for name in ("prompt_tokens", "first_prompt_tokens"))
    load["prompt_tokens"] = with_prefix(prefix, _synthetic(keys, words if keys[first] is None else first))
    answer, first_answer = (f"{data}{name}" for name in ("output_tokens", "first_output_tokens"))
    if turns > 1 and keys[first_answer] is not None:
        raise keys.error(first_answer, "all answers of a conversation have one length here", f"write {answer} alone")
    load["output_tokens"] = _synthetic(keys, answer if keys[first_answer] is None else first_answer)
    if prefix:
        load["shared_prefix"] = {"tokens": prefix, **({"groups": groups} if groups > 1 else {})}
    loads = _held_loads(keys)
    if turns == 1:
        return loads
    if any(held.rate is not None for held in loads):
        remedy = "write profile.kind: concurrent, with streams"
        raise keys.error(f"{data}turns", "guidellm's rate counts turns, and ours conversations that begin", remedy)
    delay = 1 if keys[f"{data}delay"] is None else _synthetic(keys, f"{data}delay")
    load["turns"] = turns_of(keys, f"{data}turns", turns, _synthetic(keys, words), delay)
    keys.meaning.notes.append(
        f"{data}turns: max_requests counts turns, and here conversations; streams are conversations at once"
        + ("" if delay == 1 else ", also while their users think, when guidellm may begin others")
    )
    return [replace(held, requests=held.requests and max(1, round(held.requests / turns))) for held in loads]


def _synthetic(keys: Keys, path: str) -> int | dict[str, Any]:
    mean, std = keys[path], keys[f"{path}_stdev"]
    low = max(1, round(keys[f"{path}_min"] or mean - SPREAD * std))
    high = max(1, round(keys[f"{path}_max"] or mean + SPREAD * std))
    if low > high:
        raise keys.error(f"{path}_min", f"{low} is above {high}", f"set {path.rpartition('.')[2]}_max too")
    return lengths("normal" if std else "uniform", low, high, mean, std)


def _held_loads(keys: Keys) -> list[HeldLoad]:
    """Return the loads of a profile, each within its constraints."""
    kind, most = keys["spec.profile.kind"], keys["spec.profile.max_concurrency"]
    ends = {keys[f"spec.constraints[{number}].kind"]: number for number in range(keys["spec.constraints"])}
    seconds, requests = (
        keys[f"spec.constraints[{ends[end]}].{key}"] if end in ends else []
        for end, key in (("max_duration", "seconds"), ("max_requests", "count"))
    )
    if kind in ("async", "constant"):
        keys.meaning.online["burstiness"] = "constant"
    if kind == "throughput" and most is None:
        problem = "is missing, and guidellm refuses a load of kind throughput without it"
        raise keys.error("spec.profile.max_concurrency", problem, "write the most requests at once")
    users = keys["spec.profile.streams"] or [1 if kind == "synchronous" else most]
    rates = keys["spec.profile.rate"]
    if seconds and requests and not rates:
        problem = "has seconds and a count, and a closed loop ends by one of both here"
        raise keys.error("spec.constraints", problem, "take one out")
    loads = []
    for number, (rate, concurrency) in enumerate(
        [(one, most) for one in rates] if rates else [(None, one) for one in users]
    ):
        # As in guidellm, the last limit also applies to all further loads.
        limit_s, limit = (values[min(number, len(values) - 1)] if values else None for values in (seconds, requests))
        if limit is not None and limit_s is not None:
            limit, limit_s = max(1, min(limit, round(rate * limit_s))), None
        loads.append(HeldLoad(rate, concurrency, limit_s, limit))
    return loads


def vllm_benchmark(keys: Keys) -> list[HeldLoad]:
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
    _dataset(keys)
    groups = keys["prefix-repetition-num-prefixes"] or 1
    if keys["num-prompts"] < groups:
        raise keys.error(
            "num-prompts",
            f"{keys['num-prompts']}: is below one for each of the {groups} prefixes",
            "raise it, or lower prefix-repetition-num-prefixes",
        )
    # As in vLLM, each prefix has the same number of prompts.
    return [HeldLoad(keys["request-rate"], keys["max-concurrency"], requests=keys["num-prompts"] // groups * groups)]


def _dataset(keys: Keys) -> None:
    """Write the lengths of prompts and outputs into the meaning of `keys`."""
    load, name = keys.meaning.workload, keys["dataset-name"]
    if name == "random":
        ratio, prefix = keys["random-range-ratio"], keys["random-prefix-len"]
        load["prompt_tokens"] = _between(prefix, keys["input-len"] or keys["random-input-len"], ratio[0])
        load["output_tokens"] = _between(0, keys["output-len"] or keys["random-output-len"], ratio[1])
        load["ignore_eos"] = True  # whatever the flag says, as in vLLM
        if prefix:
            load["shared_prefix"] = {"tokens": prefix}
    elif name == "prefix_repetition":
        prefix = keys["prefix-repetition-prefix-len"]
        load["prompt_tokens"] = prefix + keys["prefix-repetition-suffix-len"]
        load["output_tokens"] = keys["output-len"] or keys["prefix-repetition-output-len"]
        load["shared_prefix"] = {"tokens": prefix, "groups": keys["prefix-repetition-num-prefixes"]}
    elif name == "sonnet":
        prefix, whole = keys["sonnet-prefix-len"], keys["sonnet-input-len"]
        if prefix >= whole:
            raise keys.error("sonnet-prefix-len", f"{prefix} is not below sonnet-input-len {whole}", "lower it")
        load |= {"prompt_tokens": whole, "output_tokens": keys["output-len"] or keys["sonnet-output-len"]}
        if prefix:
            load["shared_prefix"] = {"tokens": prefix}
        keys.meaning.notes.append(SONNET)
    else:
        path, answer = keys["dataset-path"], keys["output-len"] or keys["custom-output-len"]
        answer = keys["sharegpt-output-len"] if name == "sharegpt" else answer
        load["dataset"] = {"format": "sharegpt" if name == "sharegpt" else "prompts", "path": path}
        if answer not in (None, -1):  # -1: the lengths in the file
            load["output_tokens"] = answer
            load["dataset"]["output_lengths"] = "workload"
        keys.meaning.otherwise = {
            ours: MOST_OF_FILES for ours in ("prompt_tokens", "output_tokens") if ours not in load
        }
        keys.meaning.notes.append(
            f"dataset-name: {name}: of each prompt in the file, at most {MOST_OF_FILES} "
            f"{' and '.join(keys.meaning.otherwise)} count, unless set beside profile"
        )


def _between(prefix: int, length: int, ratio: float) -> int | dict[str, Any]:
    low, high = math.floor(length * (1 - ratio)), math.ceil(length * (1 + ratio))
    return lengths("uniform", prefix + max(low, 1), prefix + max(high, 1))


LOADS: dict[str, Callable[[Keys], list[HeldLoad]]] = {
    "inference-perf": inference_perf,
    "guidellm": guidellm,
    "aiperf": aiperf,
    "vllm-benchmark": vllm_benchmark,
    "inferencemax": vllm_benchmark,
}
"""Harness -> function that completes the keys' meaning, and returns the loads in order."""


def mode_of_harness(harness: str) -> str:
    """Return the mode that measures profiles of a harness; the default of profiles for an unknown one."""
    return str(HARNESSES.get(harness, {}).get("mode", SERVED))


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
    readers = {kind: _name_reader(NAMED[kind], measured[kind]) for kind in NAMED}
    runs = []
    for variant in benchmarks_of(content, where) if harness == "guidellm" else [content]:
        keys = Keys(where, Meaning(**deepcopy(table["always"]), mode=table["mode"]), readers)
        keys.read(with_first_names(variant, table["keys"], where) if "synonyms" in table else variant, table["keys"])
        runs.append((keys.meaning, LOADS[harness](keys) if harness in LOADS else []))
    first, stages = runs[0][0], [stage for _, stages_of in runs for stage in stages_of]
    for number, (meaning, _) in enumerate(runs):
        if (meaning.workload, meaning.online, meaning.slo) != (first.workload, first.online, first.slo):
            problem = "differs from the first one in more than streams, rate and how much is sent"
            raise UserError(f"{where}: benchmarks[{number}]: {problem}", "make a profile of each such benchmark")
    if stages:
        write_arrivals(first, stages)
        left = {name: value for name, value in LEFT_TO_THE_SERVER.items() if name not in first.workload}
        if left:
            sent = ", ".join(f"{name} {value}" for name, value in left.items())
            defaults = "leaves these to the server, and here they are sent, unless set beside profile"
            first.notes.append(f"sampling: {harness} {defaults}: {sent}")
    return first


def _name_reader(wanted: str, known: set[str]) -> Reader[str]:
    """Return a reader of a name that must be one of `known`, with or without a slash at its end."""

    def reader(value: Any) -> str:
        named = text(value)
        if known.isdisjoint((named, named.rstrip("/"))):
            raise ValueError(wanted.format(", ".join(sorted(one for one in known if not TOKEN.match(one))) or "none"))
        return named

    return reader
