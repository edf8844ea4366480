"""Workloads for tests of what is sent."""

from __future__ import annotations

from rollout_bench.contracts.spec import WorkloadSpec


def workload(**changes: object) -> WorkloadSpec:
    settings = {"name": "test", "prompts": 8, "samples_per_prompt": 4, "prompt_tokens": 16, "output_tokens": 4}
    return WorkloadSpec.model_validate({**settings, "seed": 7, **changes})
