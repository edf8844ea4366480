"""Which part of a pass an engine does, where several replicas make it together, and what its random draws depend on."""

from __future__ import annotations

from dataclasses import dataclass

from rollout_bench.plan.spec import WorkloadSpec


@dataclass(frozen=True)
class Part:
    """The part of replica `replica` of `replicas`: the whole workload, with prompts and lengths of its own."""

    replica: int = 0
    replicas: int = 1

    def label(self, workload: WorkloadSpec, launch: int, iteration: int) -> str:
        """What the draws of an iteration depend on; replica 0 draws what the one engine of a launch does."""
        whole = f"{workload.seed}/{launch}/{iteration}"
        return f"{whole}/replica-{self.replica}" if self.replica else whole


WHOLE = Part()
"""The part of an engine that is alone."""
