"""How the requests of a pass are sent: when each is due, and by which harness."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rollout_bench.plan.loads import LoadPoint, LoadSpec
from rollout_bench.serving.target import Pass, Target
from rollout_bench.workloads.arrivals import arrivals
from rollout_bench.workloads.requests import Request


class Sending:
    """Sends passes. Making one imports the harness, which takes seconds.

    Args:
        load: which harness, and how arrivals are spread.
    """

    def __init__(self, load: LoadSpec) -> None:
        self._load = load
        if load.harness == "guidellm":
            from rollout_bench.serving.guidellm_harness import prepare
        else:
            import vllm.benchmarks.serve  # noqa: F401 (seconds, which belong to no pass)

            from rollout_bench.serving.vllm_harness import prepare
        self._prepare: Callable[..., Callable[[], Pass]] = prepare

    def prepare(
        self,
        requests: Sequence[Request],
        prompts: Sequence[list[int] | str],
        point: LoadPoint,
        target: Target,
        label: str,
    ) -> Callable[[], Pass]:
        """Makes all that one pass needs; what is returned sends it. `label` seeds when requests are due."""
        return self._prepare(requests, prompts, self._due_s(requests, point, label), point.concurrency, target)

    def _due_s(self, requests: Sequence[Request], point: LoadPoint, label: str) -> list[float] | None:
        if point.request_rate == "inf":
            return None
        if point.request_rate == "trace":
            return [request.arrival_s or 0.0 for request in requests]
        return arrivals(float(point.request_rate), self._load.burstiness, len(requests), label)
