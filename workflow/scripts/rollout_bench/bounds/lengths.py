"""The sequences of one pass of a workload, and what of their prompts the prefix cache answers for."""

from __future__ import annotations

from rollout_bench.bounds.schedule import Lengths
from rollout_bench.plan.spec import Spec
from rollout_bench.workloads.sizes import sizes

BLOCK_SIZES = {"cpu": 128, "ascend": 128}
"""Tokens in a block of the KV cache where nothing is said: vLLM 0.32 on cpu (ran), vllm-ascend (read); else 16."""


def pass_lengths(spec: Spec, dataset: str | None, launch: int = 0, iteration: int | None = None) -> list[Lengths]:
    """The sequences of one pass, in the order in which they are handed over.

    Args:
        spec: the experiment's settings.
        dataset: where the workload's data set is.
        launch: index of the launch: lengths that are drawn differ between launches and passes.
        iteration: index of the pass; None: the first that counts.

    Raises:
        UnknownSizesError: the lengths depend on a tokenizer.
        UserError: the data set can't be read.
    """
    workload, block = spec.workload, _block_size(spec)
    iteration = spec.measuring.warmup_iterations if iteration is None else iteration
    groups = workload.shared_prefix.groups if workload.shared_prefix else 1
    shared = workload.shared_prefix.tokens if workload.shared_prefix else 0
    found = []
    for number, (tokens, output) in enumerate(sizes(workload, launch, iteration, dataset)):
        prompt, sample = divmod(number, workload.samples_per_prompt)
        known = tokens if sample else shared if prompt >= groups else 0
        # whole blocks are found again, and the last token is computed in any case
        cached = min(known, tokens - 1) // block * block if block else 0
        found.append(Lengths(tokens, cached, output))
    return found


def _block_size(spec: Spec) -> int | None:
    """Tokens in a block of the prefix cache; None where it is off."""
    args = spec.engine.args
    if not args.get("enable_prefix_caching", True):
        return None
    return int(args.get("block_size") or BLOCK_SIZES.get(spec.platform, 16))
