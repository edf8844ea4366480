"""Schedules the requests of a pass and chooses the program that sends them."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence

from rollout_bench.contracts.load import LoadPoint, LoadSpec
from rollout_bench.measure.server import commands, guidellm, paced, vllm_command
from rollout_bench.measure.server.stream import Load, LoadPass, Prompt, Target
from rollout_bench.workloads.requests import Request, arrivals

HARNESSES: dict[str, commands.Harness] = {"vllm-bench": vllm_command, "guidellm": guidellm}
"""External load generators, by their names in the config."""


def prepare(
    spec: LoadSpec, requests: Sequence[Request], prompts: Sequence[Prompt], point: LoadPoint, target: Target, label: str
) -> Callable[[], LoadPass]:
    """Prepare one pass; return a function that sends it.

    Args:
        spec: names the load generator and the distribution of arrivals.
        requests: the requests.
        prompts: the prompt of each request.
        point: the load.
        target: the server.
        label: seeds the arrival times.
    """
    due_s = _due_s(spec, requests, point, label)
    count = point.requests or (len(requests) if point.duration_s is None else None)
    if due_s is not None:
        count = len(due_s)
    rate = None if isinstance(point.request_rate, str) else point.request_rate
    load = Load(
        requests, prompts, due_s, point.concurrency, count, point.duration_s, rate, spec.burstiness,
        zlib.crc32(label.encode()),
    )  # fmt: skip
    if spec.harness in HARNESSES:
        return commands.prepare(HARNESSES[spec.harness], load, target)
    return paced.prepare(load, target)


def _due_s(spec: LoadSpec, requests: Sequence[Request], point: LoadPoint, label: str) -> list[float] | None:
    if point.request_rate == "inf":
        return None
    if point.request_rate == "trace":
        times = [request.arrival_s or 0.0 for request in requests]
        return [time for time in times if point.duration_s is None or time < point.duration_s][: point.requests]
    return arrivals(float(point.request_rate), spec.burstiness, point.due_requests or len(requests), label)
