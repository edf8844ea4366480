"""Schedules the requests of a pass and chooses the program that sends them."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence

from rollout_bench.contracts.load import LoadPoint, LoadSpec
from rollout_bench.measure.server import commands, guidellm, paced, vllm_command
from rollout_bench.measure.server.stream import LoadPass, Target
from rollout_bench.workloads.requests import Request, arrivals

HARNESSES: dict[str, commands.Harness] = {"vllm-bench": vllm_command, "guidellm": guidellm}
"""External load generators, by their names in the config."""


class Sending:
    """Sends passes.

    Args:
        load: names the load generator and the distribution of arrivals.
    """

    def __init__(self, load: LoadSpec) -> None:
        self._load = load

    def prepare(
        self,
        requests: Sequence[Request],
        prompts: Sequence[list[int] | str],
        point: LoadPoint,
        target: Target,
        label: str,
    ) -> Callable[[], LoadPass]:
        """Prepare one pass; return a function that sends it.

        `label` seeds the arrival times.
        """
        load, due_s = self._load, self._due_s(len(requests), requests, point, label)
        if load.harness in HARNESSES:
            rate = None if isinstance(point.request_rate, str) else point.request_rate
            count = len(due_s) if due_s is not None else point.requests or len(requests)
            sent = [divmod(number, len(requests))[::-1] for number in range(count)]
            asked, texts = [requests[place] for place, _ in sent], [str(prompts[place]) for place, _ in sent]
            seed = zlib.crc32(label.encode())
            given = commands.Load(asked, texts, due_s, rate, load.burstiness, point.concurrency, seed)
            return commands.prepare(HARNESSES[load.harness], given, sent, target)
        count_due = point.requests or (None if point.duration_s is not None else len(requests))
        ending = paced.LoadEnd(point.duration_s, count_due)
        if due_s is None and point.concurrency is None:
            due_s = [0.0] * (count_due or len(requests))
        return paced.prepare(requests, prompts, due_s, point.concurrency, target, ending)

    def _due_s(self, every: int, requests: Sequence[Request], point: LoadPoint, label: str) -> list[float] | None:
        if point.request_rate == "inf":
            return None
        if point.request_rate == "trace":
            times = [request.arrival_s or 0.0 for request in requests]
            times = [time for time in times if point.duration_s is None or time < point.duration_s]
            return times[: point.requests]
        count = point.due_requests or every
        return arrivals(float(point.request_rate), self._load.burstiness, count, label)
