"""The requests of one iteration: the same for every quantization, mode and harness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rollout_bench.errors import UserError
from rollout_bench.plan.loads import longest
from rollout_bench.plan.spec import WorkloadSpec
from rollout_bench.workloads.datasets import Entry, read_dataset
from rollout_bench.workloads.lengths import drawn
from rollout_bench.workloads.parts import WHOLE, Part
from rollout_bench.workloads.prompts import prefixes, prompts, shifted


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


def moved(asked: Sequence[Request], vocabulary: int, by: int) -> list[Request]:
    """The same requests with other token ids, which share with each other what they shared before."""
    return [replace(one, prompt_token_ids=shifted(one.prompt_token_ids, vocabulary, by)) for one in asked]


class Source:
    """Where the requests of a workload come from: made once, asked for every iteration, in both modes.

    Args:
        workload: what to ask for.
        vocabulary: size of the model's vocabulary.
        model: folder or hub id of the model; its tokenizer is loaded where the data set is text.
        dataset: the data set's file, where the workload has one.
        trust_remote_code: whether a tokenizer may bring its own code.
        part: which replica they are for.

    Raises:
        UserError: the data set can't be read, or there is no tokenizer for its text.
    """

    def __init__(
        self,
        workload: WorkloadSpec,
        vocabulary: int,
        model: str,
        dataset: str | Path | None = None,
        trust_remote_code: bool = False,
        part: Part = WHOLE,
    ) -> None:
        self._part = part
        self._workload = workload
        self._vocabulary = vocabulary
        self._entries: list[Entry] = []
        self._tokenizer: Any = None
        if workload.dataset is None:
            return
        if dataset is None:
            raise UserError(f"workload {workload.name}: its data set is not there", "name the file with --dataset")
        self._entries = read_dataset(Path(dataset), workload.dataset.format)
        if any(isinstance(text, str) for entry in self._entries for text in (entry.prompt, entry.output)):
            self._tokenizer = _tokenizer(model, trust_remote_code)

    def requests(self, launch: int, iteration: int) -> list[Request]:
        """One request for each sequence, the samples of a prompt one after the other.

        Each sample has an output length of its own where the workload draws them; where a data set says how long the
        answer to a prompt is, all its samples have that. Of a data set an iteration takes the next `prompts` entries,
        for each replica, in the order of the file and from its beginning again after its end; every launch begins with
        the first.

        Raises:
            UserError: the vocabulary is too small for so many distinct prompts, or for the data set's token ids.
        """
        workload, samples = self._workload, self._workload.samples_per_prompt
        label = self._part.label(workload, launch, iteration)
        outputs = drawn(workload.output_tokens, f"{label}/output_tokens", workload.prompts * samples)
        if workload.dataset is None:
            token_ids = prompts(workload, self._vocabulary, launch, iteration, part=self._part)
            return [
                Request(number // samples, number % samples, token_ids[number // samples], tokens)
                for number, tokens in enumerate(outputs)
            ]
        first = workload.prompts * (self._part.replicas * iteration + self._part.replica)
        numbers = range(first, first + workload.prompts)
        taken = [self._entries[number % len(self._entries)] for number in numbers]
        if workload.dataset.format == "trace":
            lengths = [entry.prompt for entry in taken if isinstance(entry.prompt, int)]
            token_ids = prompts(workload, self._vocabulary, launch, iteration, lengths, self._part)
        else:
            beginnings = prefixes(workload, self._vocabulary, launch, iteration, self._part)
            token_ids = self._tokenized(taken, beginnings)
        said = self._output_tokens(taken)
        times = self._arrivals(numbers)
        return [
            Request(
                prompt, sample, token_ids[prompt], said[prompt] or outputs[prompt * samples + sample], times[prompt]
            )
            for prompt in range(workload.prompts)
            for sample in range(samples)
        ]

    def _tokenized(self, taken: Sequence[Entry], beginnings: list[list[int]]) -> list[list[int]]:
        """Prompts of a data set: a shared prefix in front, cut at the end to the longest that the workload takes."""
        texts = self._encoded([entry.prompt for entry in taken if isinstance(entry.prompt, str)])
        found = []
        for number, entry in enumerate(taken):
            own = next(texts) if isinstance(entry.prompt, str) else list(_as_ids(entry))
            if not own or max(own) >= self._vocabulary:
                raise UserError(
                    f"workload {self._workload.name}: a prompt of its data set has "
                    + (f"token id {max(own)}, the vocabulary {self._vocabulary} ids" if own else "no tokens"),
                    "use prompts that this model's tokenizer made" if own else "take that prompt out",
                )
            prompt = beginnings[number % len(beginnings)] + own
            found.append(prompt[: longest(self._workload.prompt_tokens)])
        return found

    def _output_tokens(self, taken: Sequence[Entry]) -> list[int | None]:
        """What the data set says of output lengths; of an answer its tokens, up to what the workload takes."""
        answers = self._encoded([entry.output for entry in taken if isinstance(entry.output, str)], special=False)
        most = longest(self._workload.output_tokens)
        return [
            min(max(len(next(answers)), 1), most) if isinstance(entry.output, str) else entry.output for entry in taken
        ]

    def _encoded(self, texts: list[str], special: bool = True) -> Any:
        if not texts:
            return iter(())
        return iter(self._tokenizer(texts, add_special_tokens=special)["input_ids"])

    def _arrivals(self, numbers: range) -> list[float | None]:
        """Arrivals of the entries with these running numbers, after the first of them.

        A file that begins again does so one mean gap after its end.
        """
        if self._entries[0].arrival_s is None:
            return [None] * len(numbers)
        file = [entry.arrival_s or 0.0 for entry in self._entries]
        span = file[-1] - file[0]
        turn = span + (span / (len(file) - 1) if len(file) > 1 else 0.0)
        times = [turn * (number // len(file)) + file[number % len(file)] for number in numbers]
        return [time - times[0] for time in times]


def _as_ids(entry: Entry) -> tuple[int, ...]:
    assert isinstance(entry.prompt, tuple), "a trace has lengths alone"
    return entry.prompt


def _tokenizer(model: str, trust_remote_code: bool) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(model, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, ImportError) as error:
        said = " ".join(str(error).split())
        raise UserError(
            f"{model}: has no tokenizer that works: {said[:200]}",
            "put the model's tokenizer files beside its weights, or give prompts as token ids",
        ) from None
