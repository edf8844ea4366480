"""The load of scenarios of the harness guidellm."""

from collections.abc import Mapping
from typing import Any

from rollout_bench.llmd.keys import Keys
from rollout_bench.llmd.meaning import HeldLoad, behind, bounded, uniform
from rollout_bench.llmd.overrides import laid_over, parsed

SPREAD = 5
"""Standard deviations from the mean to a missing bound, as in guidellm."""


def variants(content: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    """Return a scenario once for each of its benchmarks, with the changes of the benchmark in `spec`.

    Raises:
        UserError: if a benchmark changes a key that `spec` lacks.
    """
    spec, changes = content.get("spec"), content.get("benchmarks")
    if not isinstance(spec, dict) or not isinstance(changes, list):
        return [dict(content)]
    found = [
        {**content, "spec": laid_over(spec, parsed(change, place), place)}
        for place, change in ((f"{where}: benchmarks[{number}]", change) for number, change in enumerate(changes))
    ]
    return found or [dict(content)]


def loads(keys: Keys) -> list[HeldLoad]:
    """Complete the meaning of `keys` with the lengths of prompts and outputs, and return the loads of the profile.

    Raises:
        UserError: if keys contradict each other.
    """
    load, data = keys.meaning.workload, "spec.data[0]."
    bucket = f"{data}prefix_buckets[0]." if keys[f"{data}prefix_buckets"] else data
    prefix, groups = keys[f"{bucket}prefix_tokens"], keys[f"{bucket}prefix_count"]
    load["prompt_tokens"] = behind(prefix, _lengths(keys, f"{data}prompt_tokens"))
    load["output_tokens"] = _lengths(keys, f"{data}output_tokens")
    if prefix:
        load["shared_prefix"] = {"tokens": prefix, **({"groups": groups} if groups > 1 else {})}
    return _loads(keys)


def _lengths(keys: Keys, path: str) -> int | dict[str, Any]:
    mean, std = keys[path], keys[f"{path}_stdev"]
    low = keys[f"{path}_min"] or max(1, round(mean - SPREAD * std))
    high = keys[f"{path}_max"] or round(mean + SPREAD * std)
    if low > high:
        raise keys.error(f"{path}_min", f"{low} is above {high}", f"set {path.rpartition('.')[2]}_max too")
    return bounded(low, high, mean, std) if std else uniform(low, high)


def _loads(keys: Keys) -> list[HeldLoad]:
    """Return the loads of a profile, each within its constraints."""
    kind, most = keys["spec.profile.kind"], keys["spec.profile.max_concurrency"]
    ends = {keys[f"spec.constraints[{number}].kind"]: number for number in range(keys["spec.constraints"])}
    seconds, requests = (
        keys[f"spec.constraints[{ends[end]}].{key}"] if end in ends else []
        for end, key in (("max_duration", "seconds"), ("max_requests", "count"))
    )
    if kind in ("async", "constant"):
        keys.meaning.online["burstiness"] = "constant"
    users = keys["spec.profile.streams"] or [1 if kind == "synchronous" else most]
    rates = keys["spec.profile.rate"]
    if seconds and requests and not rates:
        problem = "has seconds and a count, and a closed loop ends by one of both here"
        raise keys.error("spec.constraints", problem, "take one out")
    found = [(None, one) for one in users] if rates is None else [(one, most) for one in rates]
    return [
        HeldLoad(
            rate,
            concurrency,
            duration_s=None if requests else _nth(seconds, number),
            requests=_fewest(_nth(requests, number), rate, _nth(seconds, number)),
        )
        for number, (rate, concurrency) in enumerate(found)
    ]


def _nth(values: list[Any], number: int) -> Any:
    """Return the limit of load `number`. As in guidellm, the last limit also applies to all further loads."""
    return values[min(number, len(values) - 1)] if values else None


def _fewest(requests: int | None, rate: float | None, seconds: float | None) -> int | None:
    if requests is None or rate is None or seconds is None:
        return requests
    return max(1, min(requests, round(rate * seconds)))
