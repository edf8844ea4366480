"""How the requests of a pass are sent: when each is due, and by which harness."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rollout_bench.contracts.load import LoadPoint, LoadSpec
from rollout_bench.measure.server import guidellm, paced, vllm_bench, vllm_command
from rollout_bench.measure.server.stream import LoadPass, Target
from rollout_bench.workloads.requests import Request, arrivals


class Sending:
    """Sends passes. Making one imports the harness, which takes seconds.

    What vLLM's benchmark can't send is paced here: for a time, some requests again, with a limit for each.

    Args:
        load: which harness, and how arrivals are spread.
    """

    def __init__(self, load: LoadSpec) -> None:
        self._load = load
        paced_here = all(self._paced_here(point) for point in load.points)
        if load.harness == "vllm" and not paced_here:
            import vllm.benchmarks.serve  # noqa: F401 (seconds, which belong to no pass)

    def _paced_here(self, point: LoadPoint) -> bool:
        further = (point.duration_s, point.requests, self._load.request_timeout_s, self._load.generators)
        return any(value is not None for value in further)

    def prepare(
        self,
        requests: Sequence[Request],
        prompts: Sequence[list[int] | str],
        point: LoadPoint,
        target: Target,
        label: str,
    ) -> Callable[[], LoadPass]:
        """Make all that one pass needs; what is returned sends it.

        `label` seeds when requests are due.
        """
        load = self._load
        if load.harness == "vllm-bench":
            rate = None if isinstance(point.request_rate, str) else point.request_rate
            how = (rate, load.burstiness, point.concurrency, target, label, point.requests)
            return vllm_command.prepare(requests, prompts, *how)
        due_s = self._due_s(len(requests), requests, point, label)
        if not self._paced_here(point):
            prepare = guidellm.prepare if load.harness == "guidellm" else vllm_bench.prepare
            return prepare(requests, prompts, due_s, point.concurrency, target)
        count = point.requests or (None if point.duration_s is not None else len(requests))
        ending = paced.LoadEnd(point.duration_s, load.at_end == "wait", count, timeout_s=load.request_timeout_s)
        if due_s is None and point.concurrency is None:
            due_s = [0.0] * (count or len(requests))
        if load.harness == "guidellm":
            return guidellm.prepare(requests, prompts, due_s, point.concurrency, target, ending)
        return paced.prepare(requests, prompts, due_s, point.concurrency, target, ending, load.generators or 1)

    def _due_s(self, every: int, requests: Sequence[Request], point: LoadPoint, label: str) -> list[float] | None:
        if point.request_rate == "inf":
            return None
        if point.request_rate == "trace":
            times = [request.arrival_s or 0.0 for request in requests]
            times = [time for time in times if point.duration_s is None or time < point.duration_s]
            return times[: point.requests]
        count = point.due_requests or every
        return arrivals(float(point.request_rate), self._load.burstiness, count, label)
