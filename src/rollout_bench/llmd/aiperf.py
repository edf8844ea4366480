"""The loads of aiperf's flags: synthetic prompts, conversations, and Mooncake's traces."""

from typing import Any

from rollout_bench.llmd.held import HeldLoad
from rollout_bench.llmd.keys import Keys
from rollout_bench.llmd.lengths import SPREAD, lengths, turns_of, with_prefix


def aiperf(keys: Keys) -> list[HeldLoad]:
    """Complete the meaning of `keys` with lengths, conversations and burstiness, and return the loads in order.

    Raises:
        UserError: if keys contradict each other.
    """
    online, file, turns = keys.meaning.online, keys["input-file"], keys["conversation-turn-mean"]
    if file is not None and keys["custom-dataset-type"] is None:
        raise keys.error("input-file", "is of no type that is known here", "write custom-dataset-type: mooncake_trace")
    if file is None:
        _write_synthetic(keys, turns)
    else:
        keys.meaning.workload["dataset"] = {"format": "trace", "path": file}
    if keys["fixed-schedule"]:
        online["request_rate"] = "trace"
    users, rates = keys["concurrency"] or [None], keys["request-rate"] or [None]
    if len(users) > 1 and len(rates) > 1:
        raise keys.error("request-rate", "is a list, and concurrency is one", "write a list of one of them")
    if rates != [None] and turns > 1:
        problem = "aiperf's rate counts turns, and ours conversations that begin"
        raise keys.error("request-rate", problem, "write a concurrency alone")
    if rates != [None] and keys["arrival-pattern"] != "poisson":
        is_even = keys["arrival-pattern"] == "constant"
        online["burstiness"] = "constant" if is_even else keys["arrival-smoothness"] or 1.0
    seconds, requests = keys["benchmark-duration"], _requests(keys, turns)
    if seconds is not None and requests is not None:
        raise keys.error("benchmark-duration", "stands beside a number of requests", "take one out")
    if seconds is None and requests is None and file is not None:
        raise keys.error("request-count", "is missing", "write how many requests of the file are sent")
    if seconds is None and requests is None:
        requests = max(10, *(2 * (one or 1) for one in users))  # as aiperf
    return [HeldLoad(rate, one, seconds, requests) for rate in rates for one in users]


def _requests(keys: Keys, turns: int) -> int | None:
    """Return the number of requests, or of conversations; None if none is set."""
    talks: int | None = keys["conversation-num"]
    requests: int | None = keys["request-count"]
    return talks if talks is not None or requests is None else max(1, round(requests / turns))


def _write_synthetic(keys: Keys, turns: int) -> None:
    """Write the lengths of synthetic prompts, which begin with prefixes, and of conversations."""
    load, prefix, shared = keys.meaning.workload, keys["prefix-prompt-length"], keys["shared-system-prompt-length"]
    if keys["osl"] is None:
        raise keys.error("osl", "is missing", "write it: the length of answers is not known without it")
    if shared and prefix:
        raise keys.error("shared-system-prompt-length", "stands beside a pool of prefixes", "take one out")
    words, groups = _bell(keys["isl"], keys["isl-stddev"]), keys["num-prefix-prompts"] if prefix else 1
    load["output_tokens"] = _bell(keys["osl"], keys["osl-stddev"])
    load["prompt_tokens"] = with_prefix(prefix + shared + keys["user-context-prompt-length"], words)
    if prefix + shared:
        load["shared_prefix"] = {"tokens": prefix + shared, **({"groups": groups} if groups > 1 else {})}
    if turns > 1:
        ratio, delay = keys["conversation-turn-delay-ratio"], keys["conversation-turn-delay-mean"]
        thinking = _bell(ratio * delay, ratio * keys["conversation-turn-delay-stddev"])
        count = _bell(turns, keys["conversation-turn-stddev"])
        load["turns"] = turns_of(keys, "conversation-turn-mean", count, words, thinking)
        keys.meaning.notes.append("conversation-turn-mean: request-count counts turns, and here conversations")
    repeated = keys["num-dataset-entries"]
    keys.meaning.notes.append(f"num-dataset-entries: aiperf repeats its {repeated} prompts; here all differ")


def _bell(mean: float, std: float) -> int | dict[str, Any]:
    low, high = max(1, round(mean - SPREAD * std)), max(1, round(mean + SPREAD * std))
    return lengths("normal", low, high, mean, std)
