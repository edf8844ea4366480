"""Resolve a workload of the config, read its data set, and check both."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rollout_bench.checkpoints.formats import SMALLEST_VOCABULARY
from rollout_bench.contracts.load import DatasetFormat, DatasetSpec, longest
from rollout_bench.contracts.spec import ModelSpec, WorkloadSpec
from rollout_bench.core.errors import UserError
from rollout_bench.plan.config import WorkloadSettings
from rollout_bench.workloads.datasets import Entry, entries, read_bytes, sha256
from rollout_bench.workloads.lengths import share_within


@dataclass(frozen=True)
class DatasetFacts:
    """Facts of a data set. Lengths are in tokens.

    Attributes:
        sha256: SHA-256 of the content.
        prompts: number of its entries.
        longest_pair: prompt and output of the longest sequence of a trace; zeros for other files.
        longest_prompt: of a trace; 0 for other files.
        shortest_prompt: of a trace; 0 for other files.
        longest_output: the largest output length given as a number; 0 if there is none.
        outputs: number of entries with an output length, as a number or by an answer.
        has_text: whether a tokenizer is needed.
        largest_id: of prompts given as token ids; -1 if there are none.
        has_arrivals: whether it has arrival times.
    """

    sha256: str
    prompts: int
    longest_pair: tuple[int, int]
    longest_prompt: int
    shortest_prompt: int
    longest_output: int
    outputs: int
    has_text: bool
    largest_id: int
    has_arrivals: bool


def dataset_facts(path: Path, format: DatasetFormat) -> DatasetFacts:
    """Return the facts of the file.

    Raises:
        UserError: the file is unreadable or not of the format.
    """
    try:
        state = path.stat()
    except (OSError, ValueError) as error:
        read_bytes(path)
        raise UserError(f"{path}: {error}", "correct the path") from None
    return _facts(path, format, state.st_size, state.st_mtime_ns)


@functools.lru_cache(maxsize=16)
def _facts(path: Path, format: DatasetFormat, size_bytes: int, mtime_ns: int) -> DatasetFacts:
    content = read_bytes(path)
    found = entries(path, content, format)
    pairs = [_pair(entry) for entry in found]
    return DatasetFacts(
        sha256=sha256(content),
        prompts=len(found),
        longest_pair=max(pairs, key=sum),
        longest_prompt=max(prompt for prompt, _ in pairs),
        shortest_prompt=min(prompt for prompt, _ in pairs),
        longest_output=_most(entry.output for entry in found),
        outputs=sum(entry.output is not None for entry in found),
        has_text=any(isinstance(text, str) for entry in found for text in (entry.prompt, entry.output)),
        largest_id=max((max(entry.prompt) for entry in found if isinstance(entry.prompt, tuple)), default=-1),
        has_arrivals=found[0].arrival_s is not None,
    )


def _pair(entry: Entry) -> tuple[int, int]:
    if isinstance(entry.prompt, int) and isinstance(entry.output, int):
        return entry.prompt, entry.output
    return 0, 0


def _most(values: Iterable[str | int | None]) -> int:
    return max((value for value in values if isinstance(value, int)), default=0)


LEAST_WITHIN = 1e-6
"""Minimum share of a distribution within its bounds: with less, the bounds determine the lengths."""

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "vocab.txt")


@dataclass(frozen=True)
class CheckedLoad:
    """A valid workload.

    Attributes:
        spec: its part of a spec.
        longest: prompt and output tokens of its longest sequence.
        dataset_path: path of its data set on this machine.
    """

    spec: WorkloadSpec
    longest: tuple[int, int]
    dataset_path: str | None


def checked_load(name: str, load: WorkloadSettings) -> CheckedLoad:
    """Return the workload `name` after checking it.

    Raises:
        UserError: it contradicts itself or its data set; the message names the key.
    """
    where = f"config: workload_settings.{name}"
    facts = None if load.dataset is None else _facts_of_load(where, load)
    prompt_tokens, output_tokens = load.prompt_tokens, load.output_tokens
    pair = longest(prompt_tokens), longest(output_tokens)
    if facts is not None and load.dataset is not None and load.dataset.format == "trace":
        _check_trace(where, load)
        prompt_tokens, output_tokens, pair = facts.longest_prompt, facts.longest_output, facts.longest_pair
    elif facts is not None:
        _check_texts(where, load, facts)
    _check_bounds(where, load)
    _check_prefix(where, load, facts)
    _check_samples(where, load)
    _check_arrivals(where, load, facts)
    _check_supply(where, load)
    dataset = facts and load.dataset and load.dataset.to(DatasetSpec, sha256=facts.sha256)
    spec = load.to(WorkloadSpec, name=name, prompt_tokens=prompt_tokens, output_tokens=output_tokens, dataset=dataset)
    return CheckedLoad(spec, pair, load.dataset.path if load.dataset else None)


def check_tokenizer(
    name: str, load: CheckedLoad, model: ModelSpec, folder: str | None, vocabulary: int | None = None
) -> None:
    """Check that the data set of workload `name` can be converted to token ids of `model`.

    Args:
        name: name of the workload.
        load: the workload.
        model: the model.
        folder: folder of its weights, which is not checked if it is missing; None if there are no weights, and so no
            tokenizer.
        vocabulary: number of its token ids, if it is known from elsewhere than a synthetic shape.

    Raises:
        UserError: it cannot be converted.
    """
    if load.dataset_path is None or load.spec.dataset is None or load.spec.dataset.format == "trace":
        return
    facts = dataset_facts(Path(load.dataset_path), load.spec.dataset.format)
    where = f"config: workload_settings.{name}.dataset"
    if model.synthetic is not None:
        vocabulary = int(model.synthetic["vocab_size"])
    if vocabulary is not None and facts.largest_id >= vocabulary:
        raise UserError(
            f"{where}: {load.dataset_path}: has token id {facts.largest_id}, {model.name} has {vocabulary} ids",
            "use prompts that this model's tokenizer made, or give them as text; for an endpoint, set its tokenizer",
        )
    if not facts.has_text:
        return
    if model.synthetic is not None:
        if vocabulary is not None and vocabulary < SMALLEST_VOCABULARY:
            raise UserError(
                f"{where}: is text, and {model.name} with {vocabulary} token ids is too small for a tokenizer",
                f"give the model a vocab_size of {SMALLEST_VOCABULARY} or more, or prompts as token ids",
            )
    elif folder is None:
        raise UserError(
            f"{where}: is text, and {model.name} has no tokenizer here",
            "give prompts as token ids, use a trace, or set the endpoint's tokenizer",
        )
    elif Path(folder).is_dir() and not any((Path(folder) / file).exists() for file in TOKENIZER_FILES):
        raise UserError(
            f"{where}: is text, and the model folder {folder} holds no tokenizer",
            "put its tokenizer files beside the weights, or give prompts as token ids",
        )


def _facts_of_load(where: str, load: WorkloadSettings) -> DatasetFacts:
    assert load.dataset is not None, "called for data sets"
    try:
        facts = dataset_facts(Path(load.dataset.path), load.dataset.format)
    except UserError as error:
        raise UserError(f"{where}.dataset: {error.problem}", error.remedy) from None
    if facts.prompts < load.prompts:
        raise UserError(
            f"{where}.prompts: {load.prompts} are more than the {facts.prompts} prompts in {load.dataset.path}",
            f"set prompts to {facts.prompts} or fewer, or name a longer file",
        )
    return facts


def _check_trace(where: str, load: WorkloadSettings) -> None:
    for key in ("prompt_tokens", "output_tokens"):
        if key in load.model_fields_set:
            raise UserError(
                f"{where}.{key}: has no effect, because the trace sets the lengths",
                f"leave {key} out; if another config sets it, give the workload another name",
            )


def _check_texts(where: str, load: WorkloadSettings, facts: DatasetFacts) -> None:
    assert load.dataset is not None, "called for data sets"
    format = load.dataset.format
    if not isinstance(load.prompt_tokens, int):
        raise UserError(
            f"{where}.prompt_tokens: is a distribution, but the prompts of a {format} data set have their own lengths",
            "give a number: the maximum number of tokens used from each prompt",
        )
    if not isinstance(load.output_tokens, int) and facts.outputs:
        raise UserError(
            f"{where}.output_tokens: is a distribution, but {load.dataset.path} sets the output lengths",
            "give the longest output as a number, or remove the lengths from the file",
        )
    if facts.longest_output > longest(load.output_tokens):
        raise UserError(
            f"{where}.output_tokens: {load.dataset.path} asks for outputs of {facts.longest_output} tokens,"
            f" more than {longest(load.output_tokens)}",
            f"set output_tokens to {facts.longest_output}, or shorten the outputs in the file",
        )


def _check_bounds(where: str, load: WorkloadSettings) -> None:
    lengths = {"prompt_tokens": load.prompt_tokens, "output_tokens": load.output_tokens}
    for key, length in lengths.items():
        if not isinstance(length, int) and share_within(length) < LEAST_WITHIN:
            raise UserError(
                f"{where}.{key}: hardly any of the distribution lies from low {length.low} to high {length.high}",
                "correct the distribution, or set low and high so that they contain most of it",
            )


def _check_prefix(where: str, load: WorkloadSettings, facts: DatasetFacts | None) -> None:
    shared = load.shared_prefix
    if shared is None:
        return
    if facts is not None and facts.shortest_prompt:
        shortest, whose = facts.shortest_prompt, "the trace's shortest prompt"
    elif isinstance(load.prompt_tokens, int):
        shortest, whose = load.prompt_tokens, "prompt_tokens"
    else:
        shortest, whose = load.prompt_tokens.low, "prompt_tokens.low"
    if shared.tokens >= shortest:
        raise UserError(
            f"{where}.shared_prefix.tokens: {shared.tokens} tokens leave no room in {whose}, {shortest}",
            f"set it to {shortest - 1} or fewer, or make prompts longer" if shortest > 1 else "make prompts longer",
        )
    if shared.groups > load.prompts:
        raise UserError(
            f"{where}.shared_prefix.groups: {shared.groups} are more than the {load.prompts} prompts",
            f"set groups to {load.prompts} or fewer",
        )


def _check_samples(where: str, load: WorkloadSettings) -> None:
    if load.requests == "per_prompt" and not isinstance(load.output_tokens, int):
        raise UserError(
            f"{where}.output_tokens: is a distribution, and the samples of one request share one length",
            "set requests: per_sequence, or output_tokens to a number",
        )


def _check_supply(where: str, load: WorkloadSettings) -> None:
    """Reject loads in whose duration more requests are due than are drawn for an iteration."""
    drawn = load.prompts * load.samples_per_prompt
    for point in load.online.points:
        due = point.due_requests
        if due is not None and due > drawn:
            key = "duration_s" if point.requests is None else "requests"
            per = f" x {load.samples_per_prompt} samples" if load.samples_per_prompt > 1 else ""
            raise UserError(
                f"{where}.online.{key}: {point.label} needs {due} requests, but {load.prompts} prompts{per} give only"
                f" {drawn}, so prompts would be repeated",
                f"set prompts to {math.ceil(due / load.samples_per_prompt)} or more",
            )


def _check_arrivals(where: str, load: WorkloadSettings, facts: DatasetFacts | None) -> None:
    if all(point.request_rate != "trace" for point in load.online.points):
        return
    if load.dataset is None or facts is None or load.dataset.format != "trace":
        raise UserError(
            f"{where}.online.request_rate: is trace, but the workload has no trace",
            "name a data set of format trace, or give requests per second",
        )
    if not facts.has_arrivals:
        raise UserError(
            f"{where}.online.request_rate: is trace, and {load.dataset.path} contains no arrival times",
            "add arrival_s to its lines, or give requests per second",
        )
