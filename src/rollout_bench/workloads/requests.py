"""The requests of one pass: prompts as token ids, shared prefixes, arrivals. They are the same in every mode."""

from __future__ import annotations

import itertools
import math
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, Literal

from rollout_bench.contracts.load import longest
from rollout_bench.contracts.spec import WorkloadSpec
from rollout_bench.core.errors import UserError
from rollout_bench.workloads.datasets import Entry, prompt_numbers, read_dataset
from rollout_bench.workloads.lengths import STANDARD, drawn, integers, stream


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
        prefix, which counts towards its length. They depend only on the arguments, not on the Python version: every
            draw is
        64 bits of SHAKE-256 over seed, launch, iteration, replica and prompt.

    Raises:
        UserError: if the vocabulary is too small for this number of distinct prompts.
    """
    label = part.label(workload, launch, iteration)
    if lengths is None:
        lengths = drawn(workload.prompt_tokens, f"{label}/prompt_tokens", workload.prompts)
    beginnings = prefixes(workload, vocabulary, launch, iteration, part)
    own = [length - len(beginnings[0]) for length in lengths]
    for (_, length), count in Counter((i % len(beginnings), length) for i, length in enumerate(own)).items():
        _check_room(workload, "prompts", vocabulary, count, length)
    draws = (f"{label}/{draw}" for draw in itertools.count())
    found: list[list[int]] = []
    seen: set[bytes] = set()
    while len(found) < len(own):
        number = len(found)
        prompt = beginnings[number % len(beginnings)] + _ids(vocabulary, next(draws), own[number])
        identity = array("Q", prompt).tobytes()
        if identity not in seen:
            seen.add(identity)
            found.append(prompt)
    return found


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
    _check_room(workload, "shared prefixes", vocabulary, shared.groups, shared.tokens)
    draws = (f"{part.label(workload, launch, iteration)}/prefix/{draw}" for draw in itertools.count())
    found: dict[tuple[int, ...], None] = {}
    while len(found) < shared.groups:
        found[tuple(_ids(vocabulary, next(draws), shared.tokens))] = None
    return [list(prefix) for prefix in found]


def shifted(token_ids: list[int], vocabulary: int, by: int) -> list[int]:
    """Return the prompt with every drawn id shifted by `by`, modulo the range of ids in prompts.

    Shifted prompts share the same prefixes as before, but a cache that has seen the original prompts contains none of
    them.
    """
    ids = token_range(vocabulary)
    return [ids[(number - ids[0] + by) % len(ids)] if number in ids else number for number in token_ids]


def _ids(vocabulary: int, label: str, length: int) -> list[int]:
    ids = token_range(vocabulary)
    return [ids[number % len(ids)] for number in integers(label, length)]


def _check_room(workload: WorkloadSpec, what: str, vocabulary: int, count: int, length: int) -> None:
    if len(token_range(vocabulary)) ** min(length, 64) < 2 * count:
        raise UserError(
            f"workload {workload.name}: {count} distinct {what} of {length} tokens are not possible "
            f"with a vocabulary of {vocabulary}",
            "ask for fewer or longer prompts",
        )


Burstiness = float | Literal["constant"]


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
    uniform = stream(f"{label}/arrivals")  # the plain label is used for prompts
    logs = [_log_gamma_draw(float(burstiness), uniform) for _ in range(count - 1)]
    largest = max(logs)  # for shapes far below 1 almost all gaps, even the largest, are too small for a double
    gaps = [math.exp(value - largest) for value in logs]
    scale = (count - 1) / rate / math.fsum(gaps)
    return [0.0, *(scale * due for due in accumulate(gaps))]


def _log_gamma_draw(shape: float, uniform: Iterator[float]) -> float:
    """Return the logarithm of a gamma-distributed number of scale 1.

    G. Marsaglia and W. W. Tsang, "A simple method for generating gamma variables", ACM TOMS 26 (2000) 363-372. The
    method is exact and accepts at least 95 % of the draws for any shape. scipy, which could invert the distribution, is
    not installed with vLLM, and numpy and `random` do not guarantee the same draws in later versions.
    """
    boost = 0.0
    if shape < 1:  # gamma(shape) is gamma(shape + 1) times a uniform number to the power of 1 / shape
        boost = math.log(next(uniform)) / shape
        shape += 1
    d = shape - 1 / 3
    c = 1 / math.sqrt(9 * d)
    while True:
        x = STANDARD.inv_cdf(next(uniform))
        v = (1 + c * x) ** 3
        if v > 0 and math.log(next(uniform)) < x * x / 2 + d - d * v + d * math.log(v):
            return math.log(d) + math.log(v) + boost


@dataclass(frozen=True)
class Request:
    """One sequence to generate.

    Attributes:
        prompt: index of its prompt in the iteration; all lines of a group in a trace share it.
        sample: index of the sample of that prompt.
        prompt_token_ids: the prompt.
        output_tokens: tokens to generate; a maximum if the workload stops at the end of text.
        arrival_s: arrival time in seconds after the start of the iteration, if a trace has one.
    """

    prompt: int
    sample: int
    prompt_token_ids: list[int]
    output_tokens: int
    arrival_s: float | None = None


def moved(asked: Sequence[Request], vocabulary: int, by: int) -> list[Request]:
    """Return the requests with shifted token ids; they share the same prefixes as before."""
    return [replace(one, prompt_token_ids=shifted(one.prompt_token_ids, vocabulary, by)) for one in asked]


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
        if any(isinstance(text, str) for entry in self._entries for text in (entry.prompt, entry.output)):
            self._tokenizer = load_tokenizer(model, trust_remote_code)

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
            return [
                Request(number // samples, number % samples, token_ids[number // samples], tokens)
                for number, tokens in enumerate(outputs)
            ]
        first = workload.prompts * (self._part.replicas * iteration + self._part.replica)
        numbers = range(first, first + workload.prompts)
        taken = [self._entries[number % len(self._entries)] for number in numbers]
        if workload.dataset.format == "trace":
            token_ids = self._traced(taken, launch, iteration)
        else:
            beginnings = prefixes(workload, self._vocabulary, launch, iteration, self._part)
            token_ids = self._tokenized(taken, beginnings)
        said = self._output_tokens(taken)
        times = self._arrivals(numbers)
        places = prompt_numbers(taken)
        siblings = [itertools.count() for _ in places]
        return [
            Request(
                place, next(siblings[place]), token_ids[number], said[number] or outputs[number * samples + sample],
                times[number],
            )
            for number, place in enumerate(places)
            for sample in range(samples)
        ]  # fmt: skip

    def _traced(self, taken: Sequence[Entry], launch: int, iteration: int) -> list[list[int]]:
        """Return the prompts of a trace; entries of the same group have the same prompt."""
        places = prompt_numbers(taken)
        pairs = zip(places, taken, strict=True)
        lengths = {place: entry.prompt for place, entry in pairs if isinstance(entry.prompt, int)}
        found = prompts(self._workload, self._vocabulary, launch, iteration, list(lengths.values()), self._part)
        return [found[place] for place in places]

    def _tokenized(self, taken: Sequence[Entry], beginnings: list[list[int]]) -> list[list[int]]:
        """Return the prompts of a data set, after a shared prefix, cut to the workload's longest prompt."""
        texts = self._encoded([entry.prompt for entry in taken if isinstance(entry.prompt, str)])
        found = []
        for number, entry in enumerate(taken):
            own = next(texts) if isinstance(entry.prompt, str) else list(_as_ids(entry))
            if not own or max(own) >= self._vocabulary:
                raise UserError(
                    f"workload {self._workload.name}: a prompt of its data set has "
                    + (f"token id {max(own)}, the vocabulary {self._vocabulary} ids" if own else "no tokens"),
                    "use prompts that this model's tokenizer made" if own else "remove that prompt",
                )
            prompt = beginnings[number % len(beginnings)] + own
            found.append(prompt[: longest(self._workload.prompt_tokens)])
        return found

    def _output_tokens(self, taken: Sequence[Entry]) -> list[int | None]:
        """Return the data set's output lengths; for answer texts, their tokens, up to the workload's longest output."""
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


def _as_ids(entry: Entry) -> tuple[int, ...]:
    assert isinstance(entry.prompt, tuple), "a trace has lengths alone"
    return entry.prompt


def load_tokenizer(model: str, trust_remote_code: bool) -> Any:
    """Return the tokenizer of a model, a folder or a hub id; raise `UserError` if it has none."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(model, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, ImportError) as error:
        said = " ".join(str(error).split())
        raise UserError(
            f"{model}: has no tokenizer that works: {said[:200]}",
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


def sharing(requests: Iterable[Request]) -> Sharing:
    """Return the prefixes that `requests` share.

    In sorted order, neighbouring prompts share the longest prefixes, so their common lengths add up to the shared
    nodes.
    """
    samples: dict[int, int] = defaultdict(int)
    ids: dict[int, list[int]] = {}
    for request in requests:
        samples[request.prompt] += 1
        ids[request.prompt] = request.prompt_token_ids
    order = sorted(ids, key=lambda prompt: ids[prompt])
    common = {(a, b): _common(ids[a], ids[b]) for a, b in pairwise(order)}
    with_others = dict.fromkeys(ids, 0)
    for pair, tokens in common.items():
        for prompt in pair:
            with_others[prompt] = max(with_others[prompt], tokens)
    among_samples = sum((count - 1) * len(ids[prompt]) for prompt, count in samples.items())
    return Sharing(among_samples + sum(common.values()), with_others)


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    return next((place for place, (a, b) in enumerate(zip(first, second, strict=False)) if a != b),
                min(len(first), len(second)))  # fmt: skip
