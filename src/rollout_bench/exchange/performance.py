"""The results of a Benchmark Report: statistics of requests and of rollout steps, with units."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from rollout_bench.analysis.stats.percentiles import Array
from rollout_bench.analysis.timed.latencies import claimable
from rollout_bench.analysis.timed.service import Requests, anatomies_of, pool_requests
from rollout_bench.contracts.modes import mode_of
from rollout_bench.contracts.record import Iteration, Record
from rollout_bench.contracts.spec import behind_server
from rollout_bench.exchange.scenario import ENGINE
from rollout_bench.numbers.iterations import columns_of
from rollout_bench.numbers.launch import parts_of
from rollout_bench.numbers.registry import NUMBERS

PERCENTILES: Final = {
    "p0p1": 0.1, "p1": 1, "p5": 5, "p10": 10, "p25": 25, "p50": 50, "p75": 75, "p90": 90, "p95": 95, "p99": 99,
    "p99p9": 99.9,
}  # fmt: skip
"""Field of a report's statistics -> percentage."""

FEW: Final = {"p50": 50}
"""Percentiles of a few values, such as passes or launches."""

LATENCY_UNITS: Final = {
    "time_to_first_token": ("ttft_s", "s"),
    "normalized_time_per_output_token": ("ntpot_s", "s/token"),
    "time_per_output_token": ("tpot_s", "s/token"),
    "inter_token_latency": ("itl_s", "s/token"),
    "request_latency": ("e2el_s", "s"),
}
"""Latency field of a report -> our measure, and its unit in the report."""

ANATOMY_UNITS: Final = {
    "makespan_s": ("makespan", "s"),
    "t50_s": ("t50", "s"),
    "t90_s": ("t90", "s"),
    "t99_s": ("t99", "s"),
    "tail_s": ("tail", "s"),
    "tail_share": ("tail_share", "fraction"),
    "fill_s": ("fill", "s"),
    "drain_s": ("drain", "s"),
    "most_running": ("most_running", "count"),
    "occupancy": ("occupancy", "fraction"),
    "group_p50_s": ("group_p50", "s"),
    "group_p90_s": ("group_p90", "s"),
    "straggler_gap_s": ("straggler_gap", "s"),
    "longest_tokens": ("longest_length", "count"),
    "longest_tokens_per_s": ("longest_token_rate", "tokens/s"),
    "longest_speed": ("longest_speed", "ratio"),
    "response_length_mean_tokens": ("mean_length", "count"),
    "response_length_max_tokens": ("longest_output", "count"),
    "response_length_min_tokens": ("shortest_output", "count"),
    "response_length_clip_ratio": ("clip_ratio", "fraction"),
    "timing_per_token_ms": ("generation_per_token", "ms/token"),
}
"""Column of `anatomy_of` -> its name in a report, and its unit."""


Passes = Sequence[Iteration]
"""The iterations of one launch without warm-up, under one load."""


def statistics_of(
    values: Array | Sequence[float | None],
    units: str,
    percentiles: Mapping[str, float] = PERCENTILES,
    mean: float | None = None,
) -> dict[str, Any] | None:
    """Return statistics of the known finite values among `values` [n]; None if there is none.

    The percentile p is the value of rank ceil(n p / 100), without interpolation, as in our tables. The standard
    deviation divides by n - 1, and is None for a single value. `mean`, if given, replaces the mean of the values.
    """
    array = np.asarray(values, dtype=float)
    ordered = np.sort(array[np.isfinite(array)])
    n = ordered.size
    if not n:
        return None
    ranks = {name: max(math.ceil(round(n * percent / 100, 9)), 1) for name, percent in percentiles.items()}
    return {
        "units": units,
        "mean": float(np.clip(ordered.mean(), ordered[0], ordered[-1])) if mean is None else mean,
        "stddev": float(ordered.std(ddof=1)) if n > 1 else None,
        "min": float(ordered[0]),
        **{name: float(ordered[rank - 1]) for name, rank in ranks.items()},
        "max": float(ordered[-1]),
    }


def results_of(records: Sequence[Record], requests: Sequence[Requests | None]) -> dict[str, Any]:
    """Return the common results of `records` [n >= 1], valid launches of one experiment under one load.

    Requests of several launches are pooled. The statistics of a rate have one value for each launch; for a single
    launch, they have one value for each pass. `requests` [n] are those of each launch without warm-up; None if its side
    file can't be read.
    """
    only_starts = mode_of(records[0].spec.mode).passes == "none"  # one token after a start is no throughput
    passes = [[iteration for iteration in record.iterations if not iteration.warmup] for record in records]
    values, independent = _latencies(requests, mode_of(records[0].spec.mode).has_loads)
    latency = {
        field: statistics_of(values[measure], units)
        for field, (measure, units) in LATENCY_UNITS.items()
        if measure in values
    }
    aggregate = {
        "requests": _requests(passes, requests),
        "latency": latency or None,
        "throughput": None if only_starts else _throughput(passes),
    }
    claimed = {
        field: {"independent": independent[measure], "highest": f"p{max(found)}" if found else "none"}
        for field, (measure, _) in LATENCY_UNITS.items()
        if measure in independent
        for found in [claimable(independent[measure])]
    }
    resources = _resources([iteration for own in passes for iteration in own])
    flags = Counter((flag.code, flag.severity) for record in records for flag in record.validity)
    observability = {
        "components": [{"component_label": ENGINE, "aggregate": resources}] if resources else None,
        "rollout_anatomy": None if only_starts else _anatomy(records, requests) or None,
        "rollout_step": None if only_starts else _steps([iteration for own in passes for iteration in own]),
        "energy": _energy(records, passes) or None,
        "engine_startup": _startup(records) or None,
        **mode_of(records[0].spec.mode).part("export", "more_of", lambda _: {})(records),
        "percentiles_claimed": claimed or None,
        "validity": {
            "valid_launches": len(records),
            "flags": [
                {"code": code, "severity": severity, "times": n} for (code, severity), n in sorted(flags.items())
            ],
        },
    }
    return {"request_performance": {"aggregate": aggregate}, "observability": observability}


def mean_lengths(passes: Passes) -> dict[str, float]:
    """Return the measured mean tokens of a sequence in `passes`: `input` and `output`."""
    sequences = sum(iteration.sequences for iteration in passes)
    tokens = {"input": sum(i.prompt_tokens for i in passes), "output": sum(i.output_tokens for i in passes)}
    return {name: amount / sequences for name, amount in tokens.items()} if sequences else {}


def _requests(passes: Sequence[Passes], requests: Sequence[Requests | None]) -> dict[str, Any]:
    every = [iteration for own in passes for iteration in own]
    found: dict[str, Any] = {
        "total": sum(i.requests for i in every),
        "failures": sum(i.failed or 0 for i in every),
        "incomplete": sum(i.incomplete or 0 for i in every),
    }
    means, known = mean_lengths(every), [each for each in requests if each is not None]
    for name, column in (("input", "prompt_tokens"), ("output", "output_tokens")):
        tokens = [getattr(each, column)[each.good] for each in known]
        of_all = statistics_of(np.concatenate(tokens), "count") if len(known) == len(requests) else None
        only_mean = {"units": "count", "mean": means[name]} if name in means else None
        found[f"{name}_length"] = of_all or only_mean
    return found


def _throughput(passes: Sequence[Passes]) -> dict[str, Any]:
    single = len(passes) == 1
    groups = [[each] for each in passes[0]] if single else passes

    def rate(amount: Callable[[Iteration], float], units: str) -> dict[str, Any] | None:
        values = [sum(map(amount, own)) / sum(i.elapsed_s for i in own) for own in (*groups, passes[0])]
        return statistics_of(values[:-1], units, FEW, values[-1] if single else None)

    return {
        "input_token_rate": rate(lambda i: i.prompt_tokens, "tokens/s"),
        "output_token_rate": rate(lambda i: i.output_tokens, "tokens/s"),
        "total_token_rate": rate(lambda i: i.prompt_tokens + i.output_tokens, "tokens/s"),
        "request_rate": rate(lambda i: i.requests - (i.failed or 0) - (i.incomplete or 0), "queries/s"),
    }


def _latencies(requests: Sequence[Requests | None], has_loads: bool) -> tuple[Mapping[str, Array], Mapping[str, int]]:
    """Return for each measure: its values [n] over all launches, and the number of independent values.

    Without a server, all requests are submitted at the start of a pass, so latencies count from there. Both are empty
    if a time of such a sequence is unknown, or a side file can't be read.
    """
    known = [each if has_loads else each.sent_at_start() for each in requests if each is not None]
    timed = has_loads or not any(np.isnan([own.ttft_s[own.good], own.e2el_s[own.good]]).any() for own in known)
    return pool_requests(known) if timed and len(known) == len(requests) else ({}, {})


def told(entries: Mapping[str, tuple[Sequence[float | None], str]]) -> dict[str, Any]:
    """Return the statistics of each entry, by its name, whose values are known: values and unit."""
    stated = {name: statistics_of(values, units, FEW) for name, (values, units) in entries.items()}
    return {name: found for name, found in stated.items() if found is not None}


def _anatomy(records: Sequence[Record], requests: Sequence[Requests | None]) -> dict[str, Any]:
    """Return the anatomy of steps over the passes of all launches; empty if a side file can't be read."""
    if None in requests:
        return {}
    anatomies = [
        anatomy
        for record, own in zip(records, requests, strict=True)
        if own is not None
        for anatomy in anatomies_of(record, own).values()
    ]
    return told(
        {name: ([each.get(column) for each in anatomies], units) for column, (name, units) in ANATOMY_UNITS.items()}
    )


def _steps(passes: Passes) -> dict[str, Any]:
    beside = [part.exported() for iteration in passes for part in iteration.parts()]
    units = {name: unit for each in beside for name, (_, unit) in each.items()}
    return told(
        {
            "generation": ([i.elapsed_s for i in passes], "s"),
            "whole_step": ([i.whole_s for i in passes], "s"),
            **{name: ([each[name][0] for each in beside if name in each], unit) for name, unit in units.items()},
        }
    )


def _energy(records: Sequence[Record], passes: Sequence[Passes]) -> dict[str, Any]:
    """Return the energy of devices during passes, with their memory and without the host; empty if unknown."""
    uses = [it.devices for own in passes for it in own if it.devices and it.whole_s == it.elapsed_s]
    joules = [[use.energy_j for use in each] for each in uses]
    columns = [columns_of(record) for record in records]
    return told(
        {
            "pass": ([sum(each) for each in joules if None not in each], "J"),  # type: ignore[arg-type]
            "per_output_token": ([NUMBERS["energy_j_per_token"].over(each) for each in columns], "J/token"),
            "share_of_power_limit": ([NUMBERS["power_limit_share"].over(each) for each in columns], "fraction"),
        }
    )


def _startup(records: Sequence[Record]) -> dict[str, Any]:
    """Return the parts of the start in seconds; for our server only the total, for a foreign endpoint nothing."""
    served = [record for record in records if behind_server(record.spec) and record.spec.endpoint is None]
    seen = [record.startup for record in records if not behind_server(record.spec)]
    reported = dict.fromkeys(name for record in records for name in record.startup.reported if name.endswith("_s"))
    return told(
        {
            "process": ([record.startup.process_s for record in records], "s"),
            "import": ([startup.import_s for startup in seen], "s"),
            "init": ([startup.init_s for startup in seen], "s"),
            "server_start": ([parts_of(record).get("server_start_s") for record in served], "s"),
            **{
                name.removesuffix("_s"): ([record.startup.reported.get(name) for record in records], "s")
                for name in reported
            },
        }
    )


def _resources(passes: Passes) -> dict[str, Any]:
    """Return the resources that engines reported: statistics over the totals of passes."""
    hits = [
        i.cached_prompt_tokens / i.prompt_tokens
        for i in passes
        if i.cached_prompt_tokens is not None and i.prompt_tokens
    ]
    uses = [use for iteration in passes for use in iteration.devices or ()]
    watts = [use.energy_j / use.window_s for use in uses if use.energy_j is not None and use.window_s]
    return told(
        {
            "cache_hit_rate": (hits, "fraction"),
            "preemptions": ([i.server.preemptions for i in passes if i.server is not None], "count"),
            "power_consumption": (watts, "Watts"),
        }
    )
