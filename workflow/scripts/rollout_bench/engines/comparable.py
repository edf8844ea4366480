"""Times of passes that can be compared with each other."""

from __future__ import annotations

from rollout_bench.plan.loads import longest
from rollout_bench.plan.spec import WorkloadSpec
from rollout_bench.records.record import Iteration


def comparable_s(workload: WorkloadSpec, iteration: Iteration) -> float:
    """The time of a pass, in seconds; as if it had generated as much as every other, where lengths are drawn.

    Passes that are asked for different work differ without anything being unsteady. What arrives at a rate takes as
    long as it arrives, whatever is asked for.
    """
    fixed = isinstance(workload.output_tokens, int) and isinstance(workload.prompt_tokens, int)
    at_a_rate = iteration.point is not None and iteration.point.request_rate != "inf"
    if (fixed and workload.dataset is None) or at_a_rate or not iteration.output_tokens:
        return iteration.elapsed_s
    usual = longest(workload.output_tokens) * workload.prompts * workload.samples_per_prompt
    # a step is as long as its slowest replica, and so is what that one had to do
    slowest = max(iteration.replicas or [], key=lambda part: part.end_s, default=None)
    return iteration.elapsed_s * usual / max(1, (slowest or iteration).output_tokens)
