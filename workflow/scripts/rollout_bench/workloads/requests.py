"""The requests of one iteration: the same for every quantization, mode and harness."""

from __future__ import annotations

from dataclasses import dataclass

from rollout_bench.plan.spec import WorkloadSpec
from rollout_bench.workloads.prompts import prompts


@dataclass(frozen=True)
class Request:
    """One sequence that is to be generated.

    Attributes:
        prompt: index of its prompt inside the iteration.
        sample: index of the sample of that prompt.
        prompt_token_ids: the prompt.
        output_tokens: how many tokens to generate, at most where the workload does not ignore the end of text.
        arrival_s: when it arrives, in seconds after the iteration begins, where a trace says so.
    """

    prompt: int
    sample: int
    prompt_token_ids: list[int]
    output_tokens: int
    arrival_s: float | None = None


def requests(workload: WorkloadSpec, vocabulary: int, launch: int, iteration: int) -> list[Request]:
    """One request for each sequence, the samples of a prompt one after the other."""
    return [
        Request(prompt, sample, token_ids, workload.output_tokens)  # type: ignore[arg-type]
        for prompt, token_ids in enumerate(prompts(workload, vocabulary, launch, iteration))
        for sample in range(workload.samples_per_prompt)
    ]
