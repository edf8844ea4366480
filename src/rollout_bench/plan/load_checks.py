"""Resolve a workload of the config, read its data set, and check both."""

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rollout_bench.checkpoints.formats import SMALLEST_VOCABULARY
from rollout_bench.contracts.load import DatasetFormat, DatasetSpec, LogNormal, Normal, Turns, longest
from rollout_bench.contracts.spec import ModelSpec, WorkloadSpec
from rollout_bench.core.errors import UserError
from rollout_bench.core.places import shipped
from rollout_bench.plan.config import WorkloadSettings
from rollout_bench.workloads.datasets import NO_TEMPLATE, Entry, entries, prompt_numbers, read_bytes, sha256
from rollout_bench.workloads.lengths import share_within


@dataclass(frozen=True)
class DatasetFacts:
    """Facts of a data set. Lengths are in tokens.

    Attributes:
        sha256: SHA-256 of the content.
        prompts: number of its entries.
        longest_pair: of the longest sequence of a trace, the prompt with all tools' results, and all answers; zeros for
            other files.
        longest_prompt: of a trace; 0 for other files.
        shortest_prompt: of a trace; 0 for other files.
        longest_output: the largest length of an answer given as a number; 0 if there is none.
        outputs: number of entries with an output length, as a number or by an answer.
        has_text: whether a tokenizer is needed.
        largest_id: of prompts given as token ids; -1 if there are none.
        has_arrivals: whether it has arrival times.
        turns: of a trace, the largest of each; None if all its sequences have one answer.
        group: number of entries in each group, 1 without groups; 0 if groups differ, or their entries lie apart.
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
    turns: Turns | None
    group: int


def facts_of(load: WorkloadSettings) -> DatasetFacts | None:
    """Return the facts of a workload's data set, None without one; raise `UserError` as `dataset_facts` does."""
    return None if load.dataset is None else dataset_facts(shipped(Path(load.dataset.path)), load.dataset.format)


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
    prompts = [entry.prompt if isinstance(entry.prompt, int) else 0 for entry in found]
    answers = [turn.output_tokens for entry in found for turn in entry.further]
    answers += [entry.output for entry in found if isinstance(entry.output, int)]
    return DatasetFacts(
        sha256=sha256(content),
        prompts=len(found),
        longest_pair=max(pairs, key=sum),
        longest_prompt=max(prompts),
        shortest_prompt=min(prompts),
        longest_output=max(answers, default=0),
        outputs=sum(entry.output is not None for entry in found),
        has_text=any(entry.has_text for entry in found),
        largest_id=max((max(entry.prompt) for entry in found if isinstance(entry.prompt, tuple)), default=-1),
        has_arrivals=found[0].arrival_s is not None,
        turns=_turns(found),
        group=_group(found),
    )


def _pair(entry: Entry) -> tuple[int, int]:
    if isinstance(entry.prompt, int) and isinstance(entry.output, int):
        put_in = sum(turn.tool_tokens for turn in entry.further)
        return entry.prompt + put_in, entry.output + sum(turn.output_tokens for turn in entry.further)
    return 0, 0


def _turns(found: Sequence[Entry]) -> Turns | None:
    further = [turn for entry in found for turn in entry.further]
    if not further:
        return None
    return Turns(
        count=1 + max(len(entry.further) for entry in found),
        tool_ms=max(1, math.ceil(max(turn.tool_ms for turn in further))),
        tool_tokens=max(turn.tool_tokens for turn in further),
    )


def _group(found: Sequence[Entry]) -> int:
    runs = [(number, len(list(run))) for number, run in itertools.groupby(prompt_numbers(found))]
    are_whole = len(runs) == len({number for number, _ in runs})
    sizes = {size for _, size in runs}
    return sizes.pop() if are_whole and len(sizes) == 1 else 0


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
    where = f"workload_settings.{name}"
    try:
        facts = facts_of(load)
    except UserError as error:
        raise UserError(f"config: {where}.dataset: {error.problem}", error.remedy) from None
    pair, traced = load.longest_pair, dict[str, Any]()
    _check_contents(where, load, facts)
    _check_requests(where, load, facts)
    if facts is not None and load.dataset is not None and load.dataset.format == "trace":
        pair = facts.longest_pair
        traced = {"prompt_tokens": facts.longest_prompt, "output_tokens": facts.longest_output, "turns": facts.turns}
    dataset = facts and load.dataset and load.dataset.to(DatasetSpec, sha256=facts.sha256)
    spec = load.to(WorkloadSpec, name=name, dataset=dataset, **traced)
    return CheckedLoad(spec, pair, str(shipped(Path(load.dataset.path))) if load.dataset else None)


def _check_contents(where: str, load: WorkloadSettings, facts: DatasetFacts | None) -> None:
    """Check that a load's lengths and turns contradict neither each other nor its data set."""
    kind, path = (load.dataset.format, load.dataset.path) if load.dataset else (None, "")
    texts, traced = kind not in (None, "trace"), kind == "trace"
    replaced = load.dataset is not None and load.dataset.output_lengths is not None
    longest_output, outputs = (facts.longest_output, facts.outputs) if facts and not replaced else (0, 0)
    if replaced and traced:
        raise UserError(
            f"config: {where}.dataset.output_lengths: has no effect, because the trace sets the lengths",
            "leave it out, or give prompts in place of a trace",
        )
    lengths = {"prompt_tokens": load.prompt_tokens, "output_tokens": load.output_tokens}
    lengths |= {f"turns.{key}": length for key, length in load.turns or ()}
    if facts is not None and facts.prompts < load.prompts:
        raise UserError(
            f"config: {where}.prompts: {load.prompts} are more than the {facts.prompts} prompts in {path}",
            f"set prompts to {facts.prompts} or fewer, or name a longer file",
        )
    for key in lengths:
        if traced and key in load.model_fields_set:
            raise UserError(
                f"config: {where}.{key}: has no effect, because the trace sets the lengths",
                f"leave {key} out; if another config sets it, give the workload another name",
            )
    if texts and not isinstance(load.prompt_tokens, int):
        raise UserError(
            f"config: {where}.prompt_tokens: is a distribution, but the prompts of a {kind} data set have their "
            "own lengths",
            "give a number: the maximum number of tokens used from each prompt",
        )
    if texts and not isinstance(load.output_tokens, int) and outputs:
        raise UserError(
            f"config: {where}.output_tokens: is a distribution, but {path} sets the output lengths",
            "give the longest output as a number, or leave the lengths out of the file",
        )
    if texts and longest_output > longest(load.output_tokens):
        raise UserError(
            f"config: {where}.output_tokens: {path} asks for outputs of {longest_output} tokens, more than "
            f"{longest(load.output_tokens)}",
            f"set output_tokens to {longest_output}, or shorten the outputs in the file",
        )
    for key, length in lengths.items():
        if isinstance(length, Normal | LogNormal) and share_within(length) < LEAST_WITHIN:
            raise UserError(
                f"config: {where}.{key}: hardly any of the distribution lies from low {length.low} to high "
                f"{length.high}",
                "correct the distribution, or set low and high so that they contain most of it",
            )
    if load.turns is not None and (traced or outputs):
        raise UserError(
            f"config: {where}.turns: {path} has the lengths of answers",
            "leave turns out (a trace has turns as lists in its lines), or name a file of prompts alone, or none",
        )


def _check_requests(where: str, load: WorkloadSettings, facts: DatasetFacts | None) -> None:
    """Check that prefixes, samples and arrivals contradict neither the load nor its data set."""
    traced, path = (load.dataset.format == "trace", load.dataset.path) if load.dataset else (False, "")
    shared, of_trace = load.shared_prefix, facts.shortest_prompt if facts else 0
    of_load = load.prompt_tokens if isinstance(load.prompt_tokens, int) else load.prompt_tokens.low
    key = "prompt_tokens" if isinstance(load.prompt_tokens, int) else "prompt_tokens.low"
    shortest, whose = (of_trace, "the trace's shortest prompt") if of_trace else (of_load, key)
    drawn = load.prompts * load.samples_per_prompt
    per = f" x {load.samples_per_prompt} samples" if load.samples_per_prompt > 1 else ""
    by_trace = any(point.request_rate == "trace" for point in load.online.points)
    if shared is not None and shared.tokens >= shortest:
        raise UserError(
            f"config: {where}.shared_prefix.tokens: {shared.tokens} tokens leave no room in {whose}, {shortest}",
            f"set it to {shortest - 1} or fewer, or make prompts longer" if shortest > 1 else "make prompts longer",
        )
    if shared is not None and shared.groups > load.prompts:
        raise UserError(
            f"config: {where}.shared_prefix.groups: {shared.groups} are more than the {load.prompts} prompts",
            f"set groups to {load.prompts} or fewer",
        )
    if load.requests == "per_prompt" and not isinstance(load.output_tokens, int):
        raise UserError(
            f"config: {where}.output_tokens: is a distribution, and the samples of one request share one length",
            "set requests: per_sequence, or output_tokens to a number",
        )
    if by_trace and not traced:
        raise UserError(
            f"config: {where}.online.request_rate: is trace, but the workload has no trace",
            "name a data set of format trace, or give requests per second",
        )
    if by_trace and facts is not None and not facts.has_arrivals:
        raise UserError(
            f"config: {where}.online.request_rate: is trace, and {path} contains no arrival times",
            "add arrival_s to its lines, or give requests per second",
        )
    turns = facts.turns if facts and facts.turns else load.turns
    if load.online.conversations is not None and turns is None:
        raise UserError(
            f"config: {where}.online.conversations: rotating: the workload has no turns",
            "leave it out, or write turns: {count: 3, tool_ms: 1, tool_tokens: 64}",
        )
    for point in sorted(load.online.points, key=lambda one: -(one.due_requests or 0)):  # no prompt is sent twice
        due = None if point.conversations else point.due_requests
        if due is not None and due > drawn:
            raise UserError(
                f"config: {where}.online.{'duration_s' if point.requests is None else 'requests'}: {point.asked} "
                f"needs {due} requests, but {load.prompts} prompts{per} give only {drawn}, so prompts would be "
                "repeated",
                f"set prompts to {math.ceil(due / load.samples_per_prompt)} or more",
            )


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
    where = f"workload_settings.{name}.dataset"
    if model.synthetic is not None:
        vocabulary = int(model.synthetic["vocab_size"])
    here = model.synthetic is None and folder is not None and Path(folder).is_dir()
    templated = load.spec.dataset.format == "messages"
    if vocabulary is not None and facts.largest_id >= vocabulary:
        raise UserError(
            f"config: {where}: {load.dataset_path}: has token id {facts.largest_id}, {model.name} has {vocabulary} ids",
            "use prompts that this model's tokenizer made, or give them as text; for an endpoint, set its tokenizer",
        )
    if facts.has_text and model.synthetic is not None and (vocabulary or 0) < SMALLEST_VOCABULARY:
        raise UserError(
            f"config: {where}: is text, and {model.name} with {vocabulary} token ids is too small for a tokenizer",
            f"give the model a vocab_size of {SMALLEST_VOCABULARY} or more, or prompts as token ids",
        )
    if facts.has_text and model.synthetic is None and folder is None:
        raise UserError(
            f"config: {where}: is text, and {model.name} has no tokenizer here",
            "give prompts as token ids, use a trace, or set the endpoint's tokenizer",
        )
    if facts.has_text and here and not any(Path(folder or "", file).exists() for file in TOKENIZER_FILES):
        raise UserError(
            f"config: {where}: is text, and the model folder {folder} holds no tokenizer",
            "put its tokenizer files beside the weights, or give prompts as token ids",
        )
    if templated and (model.synthetic is not None or (here and not _has_template(Path(folder or "")))):
        raise UserError(
            f"config: {where}: is messages, and the tokenizer of {model.name} has no chat template", NO_TEMPLATE
        )


def _has_template(folder: Path) -> bool:
    """Return whether a model's folder has a chat template, in either place where transformers keeps one."""
    config = folder / "tokenizer_config.json"
    return (folder / "chat_template.jinja").is_file() or (
        config.is_file() and '"chat_template"' in config.read_text(encoding="utf-8", errors="replace")
    )
