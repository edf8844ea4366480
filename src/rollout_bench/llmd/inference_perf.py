"""The load of profiles of the harness inference-perf."""

import math
from dataclasses import replace
from typing import Any

from rollout_bench.contracts.load import PAUSE_S
from rollout_bench.llmd.keys import Keys, without
from rollout_bench.llmd.meaning import HeldLoad, behind, bounded, uniform

CUT = (
    "load.stages: inference-perf waits for answers that are under way when the time of a stage is over; here "
    "they are cut, and are incomplete"
)
UNLIMITED = "load.worker_max_concurrency: limits nothing without num_workers, which inference-perf takes from its cores"

DATA = "data.input_distribution", "data.output_distribution"


def loads(keys: Keys) -> list[HeldLoad]:
    """Complete the meaning of `keys` with the lengths of prompts and outputs, and return the stages.

    Raises:
        UserError: if keys contradict each other, or the load is not supported.
    """
    stages = [_stage(keys, f"load.stages[{number}].") for number in range(keys["load.stages"])]
    if any(stage.duration_s is not None for stage in stages):
        keys.meaning.notes.append(CUT)
    if keys["data.type"] == "shared_prefix":
        _shared_prefix(keys, max(stage.sent(1, 1) for stage in stages))
    elif keys["data.type"] == "shareGPT":
        _conversations(keys)
    else:
        for name, ours in zip(DATA, ("prompt_tokens", "output_tokens"), strict=True):
            if f"{name}.mean" not in keys.found or keys[name] is None:
                raise keys.error(name, "is missing", "write {min: 10, max: 100, mean: 50, std_dev: 10} below it")
            keys.meaning.workload[ours] = _lengths(keys, f"{name}.", shifts=True)
    if len(stages) > 1 and keys["load.interval"] != PAUSE_S:
        problem = f"a pass begins with an idle server here, {PAUSE_S:g} s after the load before it"
        raise keys.error("load.interval", f"{keys['load.interval']:g}: {problem}", without("load.interval"))
    return stages


def _stage(keys: Keys, path: str) -> HeldLoad:
    """Return a stage, with the limit of the workers: their number, and the requests of each."""
    stage = HeldLoad(
        keys[f"{path}rate"], keys[f"{path}concurrency_level"], keys[f"{path}duration"], keys[f"{path}num_requests"]
    )
    workers, each = keys["load.num_workers"], keys["load.worker_max_concurrency"]
    if workers is None:
        keys.meaning.notes += [UNLIMITED] if each and UNLIMITED not in keys.meaning.notes else []
        return stage
    most = workers * (each or 100)
    limits = stage.sent(1, 1) > most and (stage.concurrency or most + 1) > most
    return replace(stage, concurrency=most) if limits else stage


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
    if isinstance(question, dict) and question["distribution"] == "lognormal":
        problem = "lognormal: begins behind the shared prefix, and no distribution here does"
        raise keys.error(f"{path}question_len", problem, "write normal")
    load["output_tokens"] = _length(keys, path, "output")
    load["prompt_tokens"] = behind(prefix, question)
    load["shared_prefix"] = {"tokens": prefix, **({"groups": groups} if groups > 1 else {})}
    if requests > groups * each:
        keys.meaning.notes.append(
            f"data.shared_prefix: {requests} requests have as many questions; inference-perf asks {groups * each} again"
        )


def _length(keys: Keys, path: str, what: str) -> int | dict[str, Any]:
    """Return a length: a number or a distribution. A distribution under the older name wins over a number."""
    for name in (f"{path}{what}_len", f"{path}{what}_distribution"):
        if f"{name}.mean" in keys.found:
            return _lengths(keys, f"{name}.", shifts=False)
    return keys[f"{path}{what}_len"] or 50


def _lengths(keys: Keys, path: str, *, shifts: bool) -> int | dict[str, Any]:
    """Return the lengths of a workload for the distribution at `path`.

    `shifts` says whether a log-normal distribution begins at `min`, as only random prompts do.
    """
    kind, low, high, mean, std, variance = (
        keys[f"{path}{name}"] for name in ("type", "min", "max", "mean", "std_dev", "variance")
    )
    std = std if variance is None else math.sqrt(variance)
    low = 10 if low is None else low
    if low > high:
        raise keys.error(f"{path}min", f"{low} is above max {high}", "swap them")
    if kind == "fixed":
        return int(mean)
    low = max(low, 1)
    if kind == "uniform":
        return uniform(low, high)
    if kind == "normal" and not low <= mean <= high and low != high:
        outside = f"{mean:g} lies outside {low} to {high}"
        raise keys.error(f"{path}mean", outside, "correct it: inference-perf refuses it")
    if kind == "normal" or low == high or std == 0:
        return bounded(low, high, mean, std)
    if shifts and low > 1:
        problem = "lognormal: begins at min in random data, and no distribution here does"
        raise keys.error(f"{path}type", problem, "write type: normal or uniform, or min: 1")
    sigma = math.sqrt(math.log(1 + (std / mean) ** 2))
    median = mean / math.exp(sigma**2 / 2)
    return {"distribution": "lognormal", "median": round(median, 6), "sigma": round(sigma, 6), "low": low, "high": high}
