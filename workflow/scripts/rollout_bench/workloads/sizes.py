"""How long the sequences of a pass are, without drawing a single token id: what can be known before anything runs."""

from __future__ import annotations

from pathlib import Path

from rollout_bench.plan.loads import longest
from rollout_bench.plan.spec import WorkloadSpec
from rollout_bench.workloads.datasets import Entry, read_dataset
from rollout_bench.workloads.lengths import drawn


class UnknownSizesError(Exception):
    """Why they are not known, in words that can follow `since`."""


def sizes(workload: WorkloadSpec, launch: int, iteration: int, dataset: str | None) -> list[tuple[int, int]]:
    """Prompt and output tokens of each sequence, as `Source.requests` hands them over.

    Args:
        workload: what is asked for.
        launch: index of the launch.
        iteration: index of the iteration, warm-up included.
        dataset: where its data set is, if it has one.

    Raises:
        UnknownSizesError: they depend on a tokenizer, or on a data set that is not there.
        UserError: the data set can't be read.
    """
    label, samples = f"{workload.seed}/{launch}/{iteration}", workload.samples_per_prompt
    outputs = drawn(workload.output_tokens, f"{label}/output_tokens", workload.prompts * samples)
    if workload.dataset is None:
        prompts = drawn(workload.prompt_tokens, f"{label}/prompt_tokens", workload.prompts)
        return [(prompts[number // samples], output) for number, output in enumerate(outputs)]
    taken = _entries(workload, iteration, dataset)
    lengths = [_prompt_tokens(entry, workload) for entry in taken]
    said = [entry.output if isinstance(entry.output, int) else None for entry in taken]
    return [(lengths[number // samples], said[number // samples] or output) for number, output in enumerate(outputs)]


def _entries(workload: WorkloadSpec, iteration: int, dataset: str | None) -> list[Entry]:
    """The entries of the data set that the iteration takes."""
    assert workload.dataset is not None, "called for data sets"
    if dataset is None:
        raise UnknownSizesError("its data set is not there")
    entries = read_dataset(Path(dataset), workload.dataset.format)
    if any(isinstance(text, str) for entry in entries for text in (entry.prompt, entry.output)):
        raise UnknownSizesError("its data set is text, and only the model's tokenizer knows how many tokens that is")
    numbers = range(workload.prompts * iteration, workload.prompts * (iteration + 1))
    return [entries[number % len(entries)] for number in numbers]


def _prompt_tokens(entry: Entry, workload: WorkloadSpec) -> int:
    if isinstance(entry.prompt, int):
        return entry.prompt
    prefix = workload.shared_prefix.tokens if workload.shared_prefix else 0
    return min(prefix + len(entry.prompt), longest(workload.prompt_tokens))
