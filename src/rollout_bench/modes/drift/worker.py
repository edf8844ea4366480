"""Drift mode in the engine process: the reference samples tokens, and every engine scores them."""

import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rollout_bench.core.errors import MeasuringFailed
from rollout_bench.measure.engine.context import EngineContext
from rollout_bench.measure.engine.lora import adapted_layers
from rollout_bench.measure.engine.vllm import LoadedEngine, load_engine, source_of
from rollout_bench.measure.launch.protocol import (
    AwaitTurn,
    IterationEnds,
    Job,
    PhaseBegins,
)
from rollout_bench.measure.probes.loaded_weights import end_of_text
from rollout_bench.modes.drift.events import SequencesScored
from rollout_bench.modes.drift.record import ScoredRow, read_scores
from rollout_bench.modes.drift.settings import DriftSpec
from rollout_bench.workloads.requests import Source

LOGPROBS_MODE = "raw_logprobs"
"""vLLM's name for the model's own log probabilities, before temperature and token filters."""

SEEDS = 1 << 20
"""Number of request seeds for each seed of a workload."""


@dataclass(frozen=True)
class Continued:
    """A prompt and the tokens sampled after it."""

    prompt_token_ids: list[int]
    token_ids: list[int]


def measure(job: Job, context: EngineContext) -> None:
    """Do `job`: send each event, and wait for the order before each pass.

    Raises:
        MeasuringFailed: if a prompt leaves no room for tokens, or the engine does not return log probabilities.
    """
    settings = job.spec.of(DriftSpec)
    scorer = Scorer(load_engine(job, context, logprobs_mode=LOGPROBS_MODE, **_adapted(job)), context.await_turn)
    context.send(PhaseBegins(phase="measuring"))
    if job.reference is not None:
        sequences = sampled_by(Path(job.reference))
    else:
        asked = prompts_of(source_of(job, scorer.vocabulary), settings.prompts)
        sampled = scorer.sample(asked, settings.tokens, job.spec.workload.seed * SEEDS, job.spec.workload.ignore_eos)
        context.send(IterationEnds())
        sequences = [Continued(row.prompt_token_ids or [], row.token_ids or []) for row in sampled]
        context.send(SequencesScored(rows=sampled, tokens_sha256=digest(sequences)))
    for batch in settings.batch_sizes:
        rows = scorer.score(sequences, batch)
        context.send(IterationEnds())
        context.send(SequencesScored(rows=rows, tokens_sha256=digest(sequences)))


def _adapted(job: Job) -> dict[str, Any]:
    """Return the argument that keeps vLLM on a CPU from giving the output head an adapter, which has none here.

    Its adapter of a head (vLLM 0.32) takes a token of each sequence, and fails at those of prompts.
    """
    apart = job.spec.lora is not None and job.spec.lora.how == "adapter"
    return {"lora_target_modules": adapted_layers(job.spec, job.model)} if apart and job.spec.platform == "cpu" else {}


def prompts_of(source: Source, count: int) -> list[list[int]]:
    """Return the first `count` prompts of a workload, each once, from launch 0, pass after pass."""
    passes = (source.requests(0, number) for number in itertools.count())
    distinct = ({one.prompt: one.prompt_token_ids for one in asked}.values() for asked in passes)
    return list(itertools.islice(itertools.chain.from_iterable(distinct), count))


def sampled_by(reference: Path) -> list[Continued]:
    """Return the sequences that the launch with the record `reference` sampled.

    Raises:
        UserError: as in `read_scores`.
    """
    _, rows = read_scores(reference)
    return [
        Continued(row.prompt_token_ids, row.token_ids)
        for row in rows
        if row.prompt_token_ids is not None and row.token_ids is not None
    ]


def digest(sequences: Iterable[Continued]) -> str:
    """Return the SHA-256 of prompts and tokens, as JSON without spaces."""
    ids = [[one.prompt_token_ids, one.token_ids] for one in sequences]
    return hashlib.sha256(json.dumps(ids, separators=(",", ":")).encode()).hexdigest()


class Scorer:
    """Samples and scores sequences with an engine.

    Args:
        engine: loaded engine, with `LOGPROBS_MODE`.
        wait: called when everything is ready for a pass.
    """

    def __init__(self, engine: LoadedEngine, wait: AwaitTurn) -> None:
        self._engine = engine
        self._wait = wait
        self._config: Any = engine.llm.llm_engine.vllm_config.model_config
        self._asked = 0
        self.vocabulary = engine.vocabulary

    def sample(self, prompts: Sequence[list[int]], tokens: int, first_seed: int, ignore_eos: bool) -> list[ScoredRow]:
        """Return a row for each prompt, continued at temperature 1 by at most `tokens` tokens.

        Args:
            prompts: token ids.
            tokens: fewer if `max_model_len` leaves less room; scoring needs room for one more token.
            first_seed: seed of the first prompt; each prompt has its own seed, so its tokens are independent of the
                others.
            ignore_eos: whether sequences continue after the end of text, as in the workload.

        Raises:
            MeasuringFailed: if there is no room for a token, or the engine's answer is incomplete.
        """
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        longest, room = max(map(len, prompts)), int(self._config.max_model_len) - 1
        if longest >= room:
            cause = f"a prompt of {longest} tokens leaves no room to sample any: max_model_len is {room + 1}"
            raise MeasuringFailed("no_room", cause, f"raise max_model_len to {longest + tokens + 1}, or leave it out")
        requests = [
            (
                prompt,
                SamplingParams(
                    temperature=1.0,
                    seed=first_seed + number,
                    max_tokens=min(tokens, room - len(prompt)),
                    ignore_eos=ignore_eos,
                    stop_token_ids=None if ignore_eos else end_of_text(self._config),
                    logprobs=1,
                    detokenize=False,
                    output_kind=RequestOutputKind.FINAL_ONLY,
                ),
            )
            for number, prompt in enumerate(prompts)
        ]
        self._wait()
        rows = []
        for number, output in enumerate(self._run(requests)):
            token_ids = [int(token) for token in output.outputs[0].token_ids]
            logprobs, first = read_choices(output.outputs[0].logprobs or (), token_ids)
            rows.append(
                ScoredRow(
                    sequence=number,
                    logprobs=logprobs,
                    first=first,
                    prompt_token_ids=prompts[number],
                    token_ids=token_ids,
                )
            )
        return rows

    def score(self, sequences: Sequence[Continued], batch: int) -> list[ScoredRow]:
        """Return a row for each of `sequences`; the engine receives `batch` of them at a time.

        vLLM computes these as probabilities of a prompt in one pass, in chunks if the prompt is longer than a step
        allows. It does not use the prefix cache for such requests. One token is generated and discarded.

        Raises:
            MeasuringFailed: if the engine's answer is incomplete.
        """
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        sampling = SamplingParams(
            temperature=1.0,
            seed=0,
            max_tokens=1,
            prompt_logprobs=1,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        self._wait()
        rows = []
        for begin in range(0, len(sequences), batch):
            asked = sequences[begin : begin + batch]
            outputs = self._run([(one.prompt_token_ids + one.token_ids, sampling) for one in asked])
            for number, (one, output) in enumerate(zip(asked, outputs, strict=True), begin):
                choices = list(output.prompt_logprobs or ())[len(one.prompt_token_ids) :]
                logprobs, first = read_choices(choices, one.token_ids)
                rows.append(ScoredRow(batch=batch, sequence=number, logprobs=logprobs, first=first))
        return rows

    def _run(self, requests: Sequence[tuple[list[int], Any]]) -> Iterator[Any]:
        """Yield vLLM's output for each of `requests` (prompt and sampling parameters), in order.

        The engine receives all requests before its first step, even if its core is a separate process. Otherwise chance
        would decide how many are computed together.
        """
        engine = self._engine.llm.llm_engine
        pause = getattr(engine.engine_core, "call_utility", None)
        self._engine.reset_prefix_cache()
        if pause is not None:
            pause("pause_scheduler", "keep", False)
        names = []
        for token_ids, sampling in requests:
            names.append(f"scored-{self._asked}")
            self._asked += 1
            engine.add_request(names[-1], {"prompt_token_ids": token_ids}, sampling, **self._engine.naming)
        if pause is not None:
            pause("resume_scheduler")
        outputs: dict[str, Any] = {}
        while engine.has_unfinished_requests():
            outputs |= {output.request_id: output for output in engine.step() if output.finished}
        return (outputs[name] for name in names)


def read_choices(
    prompt_logprobs: Sequence[Mapping[int, Any] | None], token_ids: Sequence[int]
) -> tuple[list[float], list[int]]:
    """Return the log probability of each of `token_ids`, and the most likely token in its place.

    Args:
        prompt_logprobs: for each token, vLLM's mapping of token id -> Logprob, with the token itself and the most
            likely token, which has rank 1. If both are the same, there is one entry.
        token_ids: the tokens, one for each mapping.

    Raises:
        MeasuringFailed: if an entry is missing or a value is not finite.
    """
    fix = "report it with the log; leave drift out of modes meanwhile"
    if len(prompt_logprobs) != len(token_ids):
        raise MeasuringFailed("not_scored", f"the engine scored {len(prompt_logprobs)} of {len(token_ids)} tokens", fix)
    logprobs, first = [], []
    for candidates, token in zip(prompt_logprobs, token_ids, strict=True):
        chosen = None if candidates is None else candidates.get(token)
        likeliest = next((other for other, choice in (candidates or {}).items() if choice.rank == 1), None)
        if chosen is None or likeliest is None:
            raise MeasuringFailed("not_scored", "the engine does not say how likely it finds each token", fix)
        if not math.isfinite(chosen.logprob):
            cause = f"the engine gives a token the log probability {chosen.logprob}"
            raise MeasuringFailed("not_finite", cause, "look at the weights: this model does not compute numbers")
        logprobs.append(float(chosen.logprob))
        first.append(int(likeliest))
    return logprobs, first
