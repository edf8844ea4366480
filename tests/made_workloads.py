"""Workloads for tests of what is sent."""

from __future__ import annotations

from rollout_bench.contracts.spec import WorkloadSpec


def workload(**changes: object) -> WorkloadSpec:
    settings: dict[str, object] = {
        "name": "test",
        "prompts": 8,
        "samples_per_prompt": 4,
        "prompt_tokens": 16,
        "output_tokens": 4,
        "requests": "per_sequence",
        "ignore_eos": True,
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": -1,
        "logprobs": None,
        "seed": 7,
    }
    return WorkloadSpec.model_validate({**settings, **changes})
