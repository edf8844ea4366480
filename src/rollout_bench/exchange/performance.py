"""The results of a Benchmark Report: statistics of requests and of rollout steps, with units."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np

from rollout_bench.analysis.stats.anatomy import PassTimes, anatomy_of
from rollout_bench.analysis.stats.percentiles import Array
from rollout_bench.analysis.timed.latencies import claimable
from rollout_bench.analysis.timed.service import Requests, at_a_rate, pass_times_of, pool_requests
from rollout_bench.contracts.modes import mode_of
from rollout_bench.contracts.record import Iteration, Record
from rollout_bench.contracts.spec import behind_server
from rollout_bench.contracts.starts import StartCourse
from rollout_bench.exchange.scenario import ENGINE
from rollout_bench.numbers.iterations import columns_of
from rollout_bench.numbers.launch import parts_of
from rollout_bench.numbers.registry import NUMBERS

PERCENTILES: Final = {
    "p0p1": 0.1, "p1": 1, "p5": 5, "p10": 10, "p25": 25, "p50": 50, "p75": 75, "p90": 90, "p95": 95, "p99": 99,
    "p99p9": 99.9,
}  # fmt: skip
"""Field of a report's statistics -> percentage."""

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


@dataclass(frozen=True)
class MeasuredLaunch:
    """One valid launch under one load, with its side file.

    Attributes:
        record: the record, with only the iterations of this load.
        file: the requests of all iterations of the launch; None if the side file can't be read.
    """

    record: Record
    file: Requests | None

    @property
    def passes(self) -> list[Iteration]:
        """The iterations without warm-up."""
        return [iteration for iteration in self.record.iterations if not iteration.warmup]

    @cached_property
    def requests(self) -> Requests | None:
        """The requests of these iterations without warm-up; None if the side file can't be read."""
        return None if self.file is None else self.file.of_iterations(self.passes)


def statistics_of(values: Array | Sequence[float], units: str, mean: float | None = None) -> dict[str, Any] | None:
    """Return statistics of the finite values among `values` [n]; None if there is no finite value.

    The percentile p is the value of rank ceil(n p / 100), without interpolation, as in our tables. The standard
    deviation divides by n - 1, and is None for a single value. `mean`, if given, replaces the mean of the values.
    """
    array = np.asarray(values, dtype=float)
    ordered = np.sort(array[np.isfinite(array)])
    n = ordered.size
    if not n:
        return None
    percentiles = {name: _at(ordered, percent) for name, percent in PERCENTILES.items()}
    least, most = float(ordered[0]), float(ordered[-1])
    middle = float(np.clip(ordered.mean(), least, most)) if mean is None else mean
    spread = float(ordered.std(ddof=1)) if n > 1 else None
    return {"units": units, "mean": middle, "stddev": spread, "min": least, **percentiles, "max": most}


def _at(ordered: Array, percent: float) -> float:
    return float(ordered[max(math.ceil(round(ordered.size * percent / 100, 9)), 1) - 1])


def _few(values: Sequence[float], units: str, mean: float | None = None) -> dict[str, Any] | None:
    """Return statistics of a few values, such as passes or launches, without percentiles except the median."""
    found = statistics_of(values, units, mean)
    few = ("units", "mean", "stddev", "min", "p50", "max")
    return None if found is None else {name: found[name] for name in few}


def results_of(launches: Sequence[MeasuredLaunch]) -> dict[str, Any]:
    """Return the common results of `launches` [n >= 1], valid launches of one experiment under one load.

    Requests of several launches are pooled. The statistics of a rate have one value for each launch; for a single
    launch, they have one value for each pass.
    """
    only_starts = mode_of(launches[0].record.spec.mode).passes == "none"  # one token after a start is no throughput
    values, independent = _latencies(launches)
    latency = {
        field: found
        for field, (measure, units) in LATENCY_UNITS.items()
        if measure in values and (found := statistics_of(values[measure], units)) is not None
    }
    aggregate = {
        "requests": _requests(launches),
        "latency": latency or None,
        "throughput": None if only_starts else _throughput(launches),
    }
    return {
        "request_performance": {"aggregate": aggregate},
        "observability": _observability(launches, independent, only_starts),
    }


def mean_lengths(launches: Sequence[MeasuredLaunch]) -> dict[str, float]:
    """Return the measured mean tokens of a sequence: `input` and `output`."""
    passes = [iteration for launch in launches for iteration in launch.passes]
    sequences = sum(iteration.sequences for iteration in passes)
    if not sequences:
        return {}
    tokens = {"input": sum(i.prompt_tokens for i in passes), "output": sum(i.output_tokens for i in passes)}
    return {name: amount / sequences for name, amount in tokens.items()}


def _requests(launches: Sequence[MeasuredLaunch]) -> dict[str, Any]:
    passes = [iteration for launch in launches for iteration in launch.passes]
    requests = [launch.requests for launch in launches if launch.requests is not None]
    means = mean_lengths(launches)
    lengths = {}
    for name, column in (("input", "prompt_tokens"), ("output", "output_tokens")):
        only_mean = {"units": "count", "mean": means[name]} if name in means else None
        tokens = [getattr(each, column)[each.good] for each in requests]
        of_all = statistics_of(np.concatenate(tokens), "count") if len(requests) == len(launches) else None
        lengths[f"{name}_length"] = of_all or only_mean
    return {
        "total": sum(i.requests for i in passes),
        "failures": sum(i.failed or 0 for i in passes),
        "incomplete": sum(i.incomplete or 0 for i in passes),
        **lengths,
    }


def _throughput(launches: Sequence[MeasuredLaunch]) -> dict[str, Any]:
    def rate(amount: Callable[[Iteration], float], units: str) -> dict[str, Any] | None:
        totals = [sum(map(amount, x.passes)) / sum(i.elapsed_s for i in x.passes) for x in launches]
        if len(launches) > 1:
            return _few(totals, units)
        return _few([amount(i) / i.elapsed_s for i in launches[0].passes], units, mean=totals[0])

    return {
        "input_token_rate": rate(lambda i: i.prompt_tokens, "tokens/s"),
        "output_token_rate": rate(lambda i: i.output_tokens, "tokens/s"),
        "total_token_rate": rate(lambda i: i.prompt_tokens + i.output_tokens, "tokens/s"),
        "request_rate": rate(lambda i: i.requests - (i.failed or 0) - (i.incomplete or 0), "queries/s"),
    }


def _latencies(launches: Sequence[MeasuredLaunch]) -> tuple[dict[str, Array], dict[str, int]]:
    """Return for each measure: its values [n] over all launches, and the number of independent values.

    Without a server, all requests are submitted at the start of a pass, so latencies count from there. Both are empty
    if a time of such a sequence is unknown, or a side file can't be read.
    """
    requests = []
    for launch in launches:
        own = launch.requests
        if own is not None and not mode_of(launch.record.spec.mode).has_loads:
            own = own.sent_at_start()
            own = None if np.isnan([own.ttft_s[own.good], own.e2el_s[own.good]]).any() else own
        if own is None:
            return {}, {}
        requests.append(own)
    return pool_requests(requests)


def _observability(
    launches: Sequence[MeasuredLaunch], independent: Mapping[str, int], only_starts: bool
) -> dict[str, Any]:
    """Return results without a standard field in a report, and the engine's own metrics; statistics have units."""
    resources = _resources(launches)
    courses = [course for launch in launches if (course := launch.record.startup.course) is not None]
    claimed = {
        field: {"independent": independent[measure], "highest": f"p{max(found)}" if found else "none"}
        for field, (measure, _) in LATENCY_UNITS.items()
        if measure in independent
        for found in [claimable(independent[measure])]
    }
    flags = Counter((flag.code, flag.severity) for launch in launches for flag in launch.record.validity)
    return {
        "components": [{"component_label": ENGINE, "aggregate": resources}] if resources else None,
        "rollout_anatomy": None if only_starts else _anatomy(launches) or None,
        "rollout_step": None if only_starts else _steps(launches),
        "energy": _energy(launches) or None,
        "engine_startup": _startup([launch.record for launch in launches]) or None,
        "engine_start": _course(courses) if courses else None,
        "percentiles_claimed": claimed or None,
        "validity": {
            "valid_launches": len(launches),
            "flags": [
                {"code": code, "severity": severity, "times": n} for (code, severity), n in sorted(flags.items())
            ],
        },
    }


def _told(entries: Mapping[str, tuple[Iterable[float | None], str]]) -> dict[str, Any]:
    stated = {name: _few([v for v in values if v is not None], units) for name, (values, units) in entries.items()}
    return {name: found for name, found in stated.items() if found is not None}


def _anatomy(launches: Sequence[MeasuredLaunch]) -> dict[str, Any]:
    """Return the anatomy of steps over the passes of all launches; empty if requests arrive at a rate."""
    times: list[PassTimes] = []
    for launch in launches:
        if launch.requests is None or any(at_a_rate(iteration.point) for iteration in launch.passes):
            return {}
        times += pass_times_of(launch.record, launch.requests)
    anatomies = [anatomy_of(each) for each in times]
    return _told(
        {name: ([each.get(column) for each in anatomies], units) for column, (name, units) in ANATOMY_UNITS.items()}
    )


def _steps(launches: Sequence[MeasuredLaunch]) -> dict[str, Any]:
    passes = [iteration for launch in launches for iteration in launch.passes]
    routed = [i.router for i in passes if i.router is not None]
    return _told(
        {
            "generation": ([i.elapsed_s for i in passes], "s"),
            "transition": ([i.transition.elapsed_s for i in passes if i.transition is not None], "s"),
            "placed_step": ([i.placed.elapsed_s for i in passes if i.placed is not None], "s"),
            "whole_step": ([i.whole_s for i in passes], "s"),
            "routing": ([each.decide_s for each in routed], "s"),
        }
    )


def _energy(launches: Sequence[MeasuredLaunch]) -> dict[str, Any]:
    """Return the energy of devices during passes, with their memory and without the host; empty if unknown."""
    passes = [it.devices for launch in launches for it in launch.passes if not (it.transition or it.placed)]
    joules = [[use.energy_j for use in uses] for uses in passes if uses]
    counted = [sum(known) for each in joules if len(known := [j for j in each if j is not None]) == len(each)]
    columns = [columns_of(launch.record) for launch in launches]
    return _told(
        {
            "pass": (counted, "J"),
            "per_output_token": ([NUMBERS["energy_j_per_token"].over(each) for each in columns], "J/token"),
            "share_of_power_limit": ([NUMBERS["power_limit_share"].over(each) for each in columns], "fraction"),
        }
    )


def _startup(records: Sequence[Record]) -> dict[str, Any]:
    """Return the parts of the start in seconds; for our server only the total, for a foreign endpoint nothing."""
    served = [record for record in records if behind_server(record.spec) and record.spec.endpoint is None]
    seen = [record.startup for record in records if not behind_server(record.spec)]
    reported = dict.fromkeys(name for record in records for name in record.startup.reported if name.endswith("_s"))
    return _told(
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


def _course(courses: Sequence[StartCourse]) -> dict[str, Any]:
    phases = dict.fromkeys(phase.name for course in courses for phase in course.phases)
    return {
        "phases": _told({name: ([course.own_s(name) for course in courses], "s") for name in phases}),
        **_told(
            {
                "rest": ([course.rest_s for course in courses], "s"),
                "until_first_token": ([course.until_token_s for course in courses], "s"),
                "weights": ([course.weights_bytes for course in courses], "bytes"),
            }
        ),
    }


def _resources(launches: Sequence[MeasuredLaunch]) -> dict[str, Any]:
    """Return the resources that engines reported: statistics over the totals of passes."""
    passes = [iteration for launch in launches for iteration in launch.passes]
    hits = [
        i.cached_prompt_tokens / i.prompt_tokens
        for i in passes
        if i.cached_prompt_tokens is not None and i.prompt_tokens
    ]
    preempted = [i.server.preemptions for i in passes if i.server is not None and i.server.preemptions is not None]
    uses = [use for iteration in passes for use in iteration.devices or ()]
    watts = [use.energy_j / use.window_s for use in uses if use.energy_j is not None and use.window_s]
    return _told(
        {
            "cache_hit_rate": (hits, "fraction"),
            "preemptions": (preempted, "count"),
            "power_consumption": (watts, "Watts"),
        }
    )
