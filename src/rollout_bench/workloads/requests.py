"""The requests of one pass: prompts as token ids, shared prefixes, arrivals. They are the same in every mode."""

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Any

import numpy as np

from rollout_bench.contracts.load import Burstiness, longest
from rollout_bench.contracts.spec import WorkloadSpec
from rollout_bench.core.errors import UserError
from rollout_bench.workloads.datasets import (
    NO_TEMPLATE,
    Entry,
    Message,
    TurnLengths,
    prompt_numbers,
    read_dataset,
)
from rollout_bench.workloads.lengths import drawn, generator


@dataclass(frozen=True)
class ReplicaPart:
    """The part of replica `replica` of `replicas`: the whole workload, with different prompts and lengths."""

    replica: int = 0
    replicas: int = 1

    def label(self, workload: WorkloadSpec, launch: int, iteration: int) -> str:
        """Return the label of an iteration's draws; replica 0 has the same draws as a single engine."""
        whole = f"{workload.seed}/{launch}/{iteration}"
        return f"{whole}/replica-{self.replica}" if self.replica else whole


WHOLE = ReplicaPart()
"""The part of a single engine."""


MARGIN = 32
"""1 / MARGIN of the vocabulary is left out at each end, because special tokens and padding lie there."""


def token_range(vocabulary: int) -> range:
    """Return the token ids used in prompts, for a vocabulary of `vocabulary` ids."""
    margin = vocabulary // MARGIN
    return range(margin, vocabulary - margin)


def prompts(
    workload: WorkloadSpec,
    vocabulary: int,
    launch: int,
    iteration: int,
    lengths: Sequence[int] | None = None,
    part: ReplicaPart = WHOLE,
) -> list[list[int]]:
    """Return the prompts of one iteration.

    Args:
        workload: number and lengths of prompts, shared prefixes, and the seed.
        vocabulary: size of the model's vocabulary.
        launch: index of the launch.
        iteration: index of the iteration, warm-up included.
        lengths: tokens of each prompt; None draws them as in the workload.
        part: the replica.

    Returns:
        A list of ids for each of `lengths`, or `workload.prompts` lists. All are different. Each begins with its shared
        prefix, which counts towards its length. They depend only on the arguments: on seed, launch, iteration and
        replica.

    Raises:
        UserError: if the vocabulary is too small for this number of distinct prompts.
    """
    label = part.label(workload, launch, iteration)
    if lengths is None:
        lengths = drawn(workload.prompt_tokens, f"{label}/prompt_tokens", workload.prompts)
    beginnings = prefixes(workload, vocabulary, launch, iteration, part)
    return _distinct(f"workload {workload.name}", "prompts", vocabulary, f"{label}/prompts", beginnings, lengths)


def prefixes(
    workload: WorkloadSpec, vocabulary: int, launch: int, iteration: int, part: ReplicaPart = WHOLE
) -> list[list[int]]:
    """Return the shared prefixes of one iteration; prompt i has prefix i modulo their number.

    Returns:
        A different list of ids for each group of `shared_prefix`, with its length; without shared prefixes, one empty
        list.

    Raises:
        UserError: if the vocabulary is too small for this number of distinct prefixes.
    """
    shared = workload.shared_prefix
    if shared is None:
        return [[]]
    label, lengths = f"{part.label(workload, launch, iteration)}/prefixes", [shared.tokens] * shared.groups
    return _distinct(f"workload {workload.name}", "shared prefixes", vocabulary, label, [[]], lengths)


def _distinct(
    where: str, what: str, vocabulary: int, label: str, beginnings: list[list[int]], lengths: Sequence[int]
) -> list[list[int]]:
    """Return a different list of ids for each of `lengths`; the beginnings take turns and count towards the lengths."""
    ids, random, remaining = (
        token_range(vocabulary),
        generator(label),
        [length - len(beginnings[0]) for length in lengths],
    )
    for (_, length), count in Counter((i % len(beginnings), length) for i, length in enumerate(remaining)).items():
        if len(ids) ** min(length, 64) < 2 * count:
            raise UserError(
                f"{where}: {count} distinct {what} of {length} tokens are not possible "
                f"with a vocabulary of {vocabulary}",
                "ask for fewer or longer prompts",
            )
    found: dict[tuple[int, ...], None] = {}
    while len(found) < len(remaining):
        number = len(found)
        drawn_ids = random.integers(ids.start, ids.stop, remaining[number]).tolist()
        found[(*beginnings[number % len(beginnings)], *drawn_ids)] = None
    return [list(prompt) for prompt in found]


def arrivals(rate: float, burstiness: Burstiness, count: int, label: str) -> list[float]:
    """Return due times of `count` requests at `rate` per second: the first at 0, the last at (count - 1) / rate.

    Gaps are drawn from the gamma distribution with shape `burstiness`, as in `vllm bench serve` and other programs. Its
    coefficient of variation is burstiness^-1/2; shape 1 is exponential, a Poisson process. The gaps are then scaled
    to the exact total, as in vLLM. For a Poisson process this is the distribution of arrivals given their number.
    Without scaling, a pass of 32 requests would differ from the nominal rate by about 18 %. vLLM also has a gap before
    the first request and ends at count / rate.

    Args:
        rate: requests per second.
        burstiness: shape of the gaps' distribution, or `constant` for even gaps.
        count: number of requests.
        label: seed, launch and iteration, on which the draws depend. The rate only scales the pattern.
    """
    if count < 2:
        return [0.0] * count
    if burstiness == "constant":
        return [number / rate for number in range(count)]
    random = generator(f"{label}/arrivals")
    # A draw for shape + 1 times a uniform number to the power of 1 / shape (Marsaglia and Tsang, ACM TOMS 26 (2000)
    # 363-372). In logarithms, because for shapes far below 1 almost all gaps are too small for a double.
    logs = np.log(random.gamma(burstiness + 1, size=count - 1)) - random.exponential(size=count - 1) / burstiness
    due = np.cumsum(np.exp(logs - logs.max()))
    return [0.0, *(due * ((count - 1) / rate / due[-1])).tolist()]


@dataclass(frozen=True)
class Turn:
    """A further turn of a sequence.

    Attributes:
        tool_s: seconds that the tool takes, after the answer before.
        tool_token_ids: the tool's result.
        output_tokens: tokens to generate after it, as in `Request`.
    """

    tool_s: float
    tool_token_ids: list[int]
    output_tokens: int


@dataclass(frozen=True)
class Request:
    """One sequence to generate.

    Attributes:
        prompt: index of its prompt in the iteration; all lines of a group in a trace share it.
        sample: index of the sample of that prompt.
        prompt_token_ids: the prompt.
        output_tokens: tokens to generate; a maximum if the workload stops at the end of text.
        arrival_s: arrival time in seconds after the start of the iteration, if a trace has one.
        further: its turns after the first answer.
        made: last tokens of the prompt, which an earlier step generated.
        turn: position in its conversation, from 1, of a request to a server; None without conversations.
    """

    prompt: int
    sample: int
    prompt_token_ids: list[int]
    output_tokens: int
    arrival_s: float | None = None
    further: tuple[Turn, ...] = ()
    made: int = 0
    turn: int | None = None


def drawn_turns(workload: WorkloadSpec, label: str, count: int) -> list[tuple[TurnLengths, ...]]:
    """Return the lengths of the further turns of `count` sequences, drawn as in the workload; none if it has none."""
    turns = workload.turns
    if turns is None:
        return [()] * count
    further = [answers - 1 for answers in drawn(turns.count, f"{label}/turns", count)]
    lengths = {
        "tool_ms": turns.tool_ms,
        "tool_tokens": turns.tool_tokens,
        "further_output_tokens": workload.output_tokens,
    }
    each = map(TurnLengths, *(drawn(length, f"{label}/{name}", sum(further)) for name, length in lengths.items()))
    return [tuple(itertools.islice(each, number)) for number in further]


def with_turns(
    asked: Sequence[Request], further: Iterable[Sequence[TurnLengths]], vocabulary: int, label: str
) -> list[Request]:
    """Return the sequences with the turns in `further`, whose token ids depend only on `label`."""
    ids, random = token_range(vocabulary), generator(f"{label}/tools")
    return [
        replace(
            one,
            further=tuple(
                Turn(ms / 1000, random.integers(ids.start, ids.stop, tokens).tolist(), out) for ms, tokens, out in turns
            ),
        )
        for one, turns in zip(asked, further, strict=True)
    ]


def with_shifted_ids(asked: Sequence[Request], vocabulary: int, by: int) -> list[Request]:
    """Return the requests with every drawn id shifted by `by`, modulo the range of ids in prompts.

    They share the same prefixes as before, but a cache that has seen the original prompts contains none of them.
    """
    ids = token_range(vocabulary)
    shifted = {number: ids[(number - ids[0] + by) % len(ids)] for number in ids}
    return [
        replace(one, prompt_token_ids=[shifted.get(number, number) for number in one.prompt_token_ids]) for one in asked
    ]


def sent_of(asked: Sequence[Request], sent: Sequence[tuple[int, int]]) -> list[Request]:
    """Return the sent requests, from pairs: index in `asked`, and how often that request was sent before.

    A request that is sent again counts as a further sample of its prompt.
    """
    samples = Counter(request.prompt for request in asked)
    return [
        replace(asked[number], sample=asked[number].sample + turn * samples[asked[number].prompt])
        for number, turn in sent
    ]


class Source:
    """Makes the requests of a workload for every iteration.

    Args:
        workload: the workload.
        vocabulary: size of the model's vocabulary.
        model: folder or hub id of the model, whose tokenizer is loaded if the data set is text.
        dataset: file of the data set, if the workload has one.
        trust_remote_code: whether the tokenizer may run code from the model.
        part: the replica.

    Raises:
        UserError: if the data set cannot be read, or has text but no tokenizer is available.
    """

    def __init__(
        self,
        workload: WorkloadSpec,
        vocabulary: int,
        model: str,
        dataset: str | Path | None = None,
        trust_remote_code: bool = False,
        part: ReplicaPart = WHOLE,
    ) -> None:
        self._part = part
        self._workload = workload
        self._vocabulary = vocabulary
        self._entries: list[Entry] = []
        self._tokenizer: Any = None
        if workload.dataset is None:
            return
        if dataset is None:
            raise UserError(f"workload {workload.name}: its data set is missing", "name the file with --dataset")
        self._entries = read_dataset(Path(dataset), workload.dataset.format)
        if any(entry.has_text for entry in self._entries):
            self._tokenizer = load_tokenizer(model, trust_remote_code)
        if workload.dataset.format == "messages" and not getattr(self._tokenizer, "chat_template", None):
            raise UserError(f"{model}: its tokenizer has no chat template", NO_TEMPLATE)

    def requests(self, launch: int, iteration: int, least: int = 0) -> list[Request]:
        """Return one request for each sequence; the samples of a prompt follow each other.

        If prompts are drawn, there are at least `least` requests: the workload's own, and further requests of the same
        kind.

        If the workload draws output lengths, each sample has its own; a length from a data set holds for all samples of
        the prompt. From a data set, each iteration takes the next `prompts` entries for each replica, in the file's
        order. After the end it continues with the first entry. Every launch begins with the first entry.

        Raises:
            UserError: if the vocabulary is too small for distinct prompts, or for the data set's token ids.
        """
        workload, samples = self._workload, self._workload.samples_per_prompt
        if least > workload.prompts * samples and workload.dataset is None:
            workload = workload.model_copy(update={"prompts": math.ceil(least / samples)})
        label = self._part.label(workload, launch, iteration)
        outputs = drawn(workload.output_tokens, f"{label}/output_tokens", workload.prompts * samples)
        if workload.dataset is None:
            token_ids = prompts(workload, self._vocabulary, launch, iteration, part=self._part)
            asked = [
                Request(number // samples, number % samples, token_ids[number // samples], tokens)
                for number, tokens in enumerate(outputs)
            ]
            return with_turns(asked, drawn_turns(workload, label, len(asked)), self._vocabulary, label)
        first = workload.prompts * (self._part.replicas * iteration + self._part.replica)
        numbers = range(first, first + workload.prompts)
        taken = [self._entries[number % len(self._entries)] for number in numbers]
        if workload.dataset.format == "trace":
            token_ids = self._trace_prompts(taken, launch, iteration)
            further = [entry.further for entry in taken for _ in range(samples)]
        else:
            further = drawn_turns(workload, label, len(outputs))
            beginnings = prefixes(workload, self._vocabulary, launch, iteration, self._part)
            token_ids = [self._ids(entry, beginnings[i % len(beginnings)]) for i, entry in enumerate(taken)]
        output_tokens = [self._output_tokens(entry) for entry in taken]
        times = self._arrivals(numbers)
        places = prompt_numbers(taken)
        siblings = [itertools.count() for _ in places]
        asked = [
            Request(
                place,
                next(siblings[place]),
                token_ids[number],
                output_tokens[number] or outputs[number * samples + sample],
                times[number],
            )
            for number, place in enumerate(places)
            for sample in range(samples)
        ]
        return with_turns(asked, further, self._vocabulary, label)

    def _trace_prompts(self, taken: Sequence[Entry], launch: int, iteration: int) -> list[list[int]]:
        """Return the prompts of a trace; entries of the same group have the same prompt."""
        places = prompt_numbers(taken)
        pairs = zip(places, taken, strict=True)
        lengths = {place: entry.prompt for place, entry in pairs if isinstance(entry.prompt, int)}
        found = prompts(self._workload, self._vocabulary, launch, iteration, list(lengths.values()), self._part)
        return [found[place] for place in places]

    def _ids(self, entry: Entry, beginning: list[int]) -> list[int]:
        """Return a prompt of the data set, after a shared prefix, cut to the workload's longest prompt."""
        assert not isinstance(entry.prompt, int), "a trace has only lengths"
        if isinstance(entry.prompt, list):
            token_ids = self._tokenizer(self._rendered(entry.prompt), add_special_tokens=False)["input_ids"]
        else:
            token_ids = (
                self._tokenizer(entry.prompt)["input_ids"] if isinstance(entry.prompt, str) else list(entry.prompt)
            )
        if not token_ids or max(token_ids) >= self._vocabulary:
            raise UserError(
                f"workload {self._workload.name}: a prompt of its data set has "
                + (f"token id {max(token_ids)}, the vocabulary {self._vocabulary} ids" if token_ids else "no tokens"),
                "use prompts that this model's tokenizer made" if token_ids else "leave that prompt out",
            )
        return [*beginning, *token_ids][: longest(self._workload.prompt_tokens)]

    def _rendered(self, messages: Sequence[Message]) -> str:
        """Return the messages in the model's chat template, up to where its answer begins."""
        from jinja2 import TemplateError

        turns = [message.model_dump() for message in messages]
        try:
            return str(self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
        except TemplateError as error:
            raise UserError(
                f"workload {self._workload.name}: the model's chat template refuses messages of its data set: {error}",
                "give messages with the roles that this template knows, in its order",
            ) from None

    def _output_tokens(self, entry: Entry) -> int | None:
        """Return the data set's output length; for an answer text, its tokens, up to the workload's longest output.

        It is None if the workload sets it.
        """
        if self._workload.dataset is not None and self._workload.dataset.output_lengths is not None:
            return None
        if not isinstance(entry.output, str):
            return entry.output
        answer = self._tokenizer(entry.output, add_special_tokens=False)["input_ids"]
        return min(max(len(answer), 1), longest(self._workload.output_tokens))

    def _arrivals(self, numbers: range) -> list[float | None]:
        """Return the arrival times of the entries with these running numbers, relative to the first.

        After its end, the file repeats with one mean gap between.
        """
        if self._entries[0].arrival_s is None:
            return [None] * len(numbers)
        file = [entry.arrival_s or 0.0 for entry in self._entries]
        span = file[-1] - file[0]
        turn = span + (span / (len(file) - 1) if len(file) > 1 else 0.0)
        times = [turn * (number // len(file)) + file[number % len(file)] for number in numbers]
        return [time - times[0] for time in times]


def load_tokenizer(model: str, trust_remote_code: bool) -> Any:
    """Return the tokenizer of a model, a folder or a hub id; raise `UserError` if it has none."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(model, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, ImportError) as error:
        cause = " ".join(str(error).split())
        raise UserError(
            f"{model}: has no tokenizer that works: {cause[:200]}",
            "put the model's tokenizer files beside its weights, or give prompts as token ids",
        ) from None


@dataclass(frozen=True)
class Sharing:
    """The most that an initially empty prefix cache can provide for some requests.

    Attributes:
        tokens: number of prompt tokens that need not be computed. In a tree of all prompts with a node for each token,
            this is the sum of the lengths minus the number of nodes.
        with_others: index of a prompt -> length of the longest prefix that it shares with another prompt.
    """

    tokens: int
    with_others: dict[int, int]


def sharing(requests: Sequence[Request]) -> Sharing:
    """Return the prefixes that `requests` share.

    In sorted order, neighbouring prompts share the longest prefixes, so their common lengths add up to the shared
    nodes.
    """
    ids = {request.prompt: request.prompt_token_ids for request in requests}
    tokens = sum(len(request.prompt_token_ids) for request in requests) - sum(map(len, ids.values()))
    with_others = dict.fromkeys(ids, 0)
    for pair in pairwise(sorted(ids, key=lambda prompt: ids[prompt])):
        common = sum(1 for _ in takewhile(lambda two: two[0] == two[1], zip(*map(ids.__getitem__, pair), strict=False)))
        tokens += common
        with_others |= {prompt: max(with_others[prompt], common) for prompt in pair}
    return Sharing(tokens, with_others)
