"""How long the sequences of one pass of a workload are, and what of their prompts the prefix cache answers for."""

from __future__ import annotations

from pathlib import Path

from rollout_bench.bounds.schedule import Lengths
from rollout_bench.plan.spec import Spec, WorkloadSpec
from rollout_bench.workloads.datasets import Entry, read_dataset
from rollout_bench.workloads.lengths import drawn

BLOCK_SIZES = {"cpu": 128, "ascend": 128}
"""Tokens in a block of the KV cache where nothing is said: vLLM 0.32 on cpu (ran), vllm-ascend (read); else 16."""


class UnknownLengthsError(Exception):
    """Why the lengths are not known, in words that can follow `since`."""


def pass_lengths(spec: Spec, dataset: str | None, launch: int = 0, iteration: int | None = None) -> list[Lengths]:
    """The sequences of one pass, in the order in which they are handed over.

    Args:
        spec: the experiment's settings.
        dataset: where the workload's data set is.
        launch: index of the launch: lengths that are drawn differ between launches and passes.
        iteration: index of the pass; None: the first that counts.

    Raises:
        UnknownLengthsError: the lengths depend on a tokenizer.
        UserError: the data set can't be read.
    """
    workload = spec.workload
    iteration = spec.measuring.warmup_iterations if iteration is None else iteration
    label = f"{workload.seed}/{launch}/{iteration}"
    outputs = drawn(workload.output_tokens, f"{label}/output_tokens", workload.prompts * workload.samples_per_prompt)
    prompts = drawn(workload.prompt_tokens, f"{label}/prompt_tokens", workload.prompts)
    said: list[int | None] = [None] * workload.prompts
    if workload.dataset is not None:
        prompts, said = _from_dataset(workload, dataset, iteration)
    block = _block_size(spec)
    groups = workload.shared_prefix.groups if workload.shared_prefix else 1
    shared = workload.shared_prefix.tokens if workload.shared_prefix else 0
    found = []
    for number, output in enumerate(outputs):
        prompt, sample = divmod(number, workload.samples_per_prompt)
        known = prompts[prompt] if sample else shared if prompt >= groups else 0
        # whole blocks are found again, and the last token is computed in any case
        cached = min(known, prompts[prompt] - 1) // block * block if block else 0
        found.append(Lengths(prompts[prompt], cached, said[prompt] or output))
    return found


def _block_size(spec: Spec) -> int | None:
    """Tokens in a block of the prefix cache; None where it is off."""
    args = spec.engine.args
    if not args.get("enable_prefix_caching", True):
        return None
    return int(args.get("block_size") or BLOCK_SIZES.get(spec.platform, 16))


def _from_dataset(workload: WorkloadSpec, path: str | None, iteration: int) -> tuple[list[int], list[int | None]]:
    """Prompt and output tokens of the entries that a pass takes; an output of None is to be drawn."""
    assert workload.dataset is not None, "called for data sets"
    if path is None:
        raise UnknownLengthsError("its data set is not there")
    entries = read_dataset(Path(path), workload.dataset.format)
    if any(isinstance(text, str) for entry in entries for text in (entry.prompt, entry.output)):
        raise UnknownLengthsError("its data set is text, and only the model's tokenizer knows how many tokens that is")
    numbers = range(workload.prompts * iteration, workload.prompts * (iteration + 1))
    taken = [entries[number % len(entries)] for number in numbers]
    prefix = workload.shared_prefix.tokens if workload.shared_prefix else 0
    prompts = [_prompt_tokens(entry, prefix, workload) for entry in taken]
    return prompts, [entry.output if isinstance(entry.output, int) else None for entry in taken]


def _prompt_tokens(entry: Entry, prefix: int, workload: WorkloadSpec) -> int:
    if isinstance(entry.prompt, int):
        return entry.prompt
    longest = workload.prompt_tokens if isinstance(workload.prompt_tokens, int) else workload.prompt_tokens.high
    return min(prefix + len(entry.prompt), longest)
