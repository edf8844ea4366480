"""The entries of a rollout's replica: how sequences that a router hands out reach vLLM, and what comes back of them."""

from __future__ import annotations

import asyncio
import gc
import math
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from rollout_bench.contracts.record import Drafting
from rollout_bench.measure.engine.vllm import (
    LoadedEngine,
    arguments,
    drafting_of,
    drafts,
    facts_of,
    imported,
    sampling,
    tell_ready,
    vocabulary_of,
)
from rollout_bench.measure.launch.protocol import Job, Tell
from rollout_bench.measure.probes.census import world_size
from rollout_bench.measure.routing.exchange import Generate

ABORT_AGAIN_S = 0.002
"""Time after which an abort is said again: one that comes before the request has reached the engine is lost."""


@dataclass(frozen=True)
class Outcome:
    """What came of a sequence. Moments are on the monotonic clock, in seconds; None where nobody knows.

    Attributes:
        token_ids: what was generated.
        logprobs: log probability of each of these, None for one that is no number; None where none were returned.
        finish_reason: why it ended.
        prompt_tokens: tokens of the prompt, as the engine counts them.
        cached_prompt_tokens: of these, taken from the prefix cache.
        sent: when its HTTP request was sent, behind a server.
        queued, scheduled, first_token, last_token: as a row of the side file has them.
    """

    token_ids: list[int]
    logprobs: list[float | None] | None
    finish_reason: str | None
    prompt_tokens: int
    cached_prompt_tokens: int | None
    sent: float | None = None
    queued: float | None = None
    scheduled: float | None = None
    first_token: float | None = None
    last_token: float | None = None


def finite(said: Iterable[float | None]) -> list[float | None]:
    """Return log probabilities with None for those that are NaN or infinite, which no JSON can carry."""
    return [None if one is None or not math.isfinite(one) else one for one in said]


def outcome_of(output: Any) -> Outcome:
    """Return what came of a request for one sequence, from vLLM's RequestOutput."""
    (completion,) = output.outputs
    token_ids = list(completion.token_ids)
    said = completion.logprobs
    moments = {
        name: getattr(output.metrics, f"{name}_ts", 0.0) or None
        for name in ("queued", "scheduled", "first_token", "last_token")
    }
    return Outcome(
        token_ids,
        None if said is None else finite(at[token].logprob for token, at in zip(token_ids, said, strict=False)),
        completion.finish_reason,
        len(output.prompt_token_ids or ()),
        output.num_cached_tokens,
        **moments,
    )


class EngineLooks:
    """What an engine says of itself after each of its steps: a logger of vLLM's statistics.

    Makes no use of vLLM's base class, which can't be imported before the engine's start is timed.
    """

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Forget what was before."""
        self.preemptions = self.peak_running = 0
        self.kv_cache_peak = 0.0
        self.drafting: Drafting | None = None
        """What was drafted; None where nothing was."""

    def record(self, scheduler_stats: Any, iteration_stats: Any, *_: Any, **__: Any) -> None:
        """Take what vLLM says."""
        if iteration_stats is not None:
            self.preemptions += iteration_stats.num_preempted_reqs
        if scheduler_stats is None:
            return
        self.peak_running = max(self.peak_running, scheduler_stats.num_running_reqs)
        self.kv_cache_peak = max(self.kv_cache_peak, scheduler_stats.kv_cache_usage)
        drafted = _drafted(scheduler_stats)
        if drafted is not None:
            self.drafting = drafted if self.drafting is None else Drafting.together([self.drafting, drafted])

    def log_engine_initialized(self) -> None:
        """Do nothing."""

    def log(self) -> None:
        """Do nothing."""

    def record_sleep_state(self, *_: Any, **__: Any) -> None:
        """Do nothing."""


def _drafted(scheduler_stats: Any) -> Drafting | None:
    """Return what one step drafted; None where nothing was checked in it."""
    stats = scheduler_stats.spec_decoding_stats
    if stats is None:
        return None
    return Drafting(
        drafts=stats.num_drafts,
        draft_tokens=stats.num_draft_tokens,
        accepted_tokens=stats.num_accepted_tokens,
        accepted_by_position=list(stats.num_accepted_tokens_per_pos),
    )


class EntryPoint(ABC):
    """A loaded engine, as a router's sequences reach it."""

    def __init__(self, vocabulary: int) -> None:
        self.vocabulary = vocabulary
        self.looks: EngineLooks | None = None
        """What the engine says of itself after each of its steps; None where it is not asked."""

    def preemptions(self) -> int | None:
        """Return how often the engine preempted sequences in the step that is over; None where nobody knows."""
        return None if self.looks is None else self.looks.preemptions

    def drafting(self) -> Drafting | None:
        """Return what speculative decoding did in the step that is over; None where there is none, or nobody knows."""
        return None

    @abstractmethod
    async def generate(self, word: Generate) -> Outcome:
        """Return what comes of a sequence."""

    async def handed(self) -> None:  # noqa: B027 (most begin with the first that comes)
        """Take note that all sequences of the step have come."""

    async def abort(self, ids: Collection[int]) -> None:
        """Have sequences end as they are."""
        raise RuntimeError(f"{type(self).__name__} can leave no sequence: planning refuses to over-sample through it")

    @abstractmethod
    async def reset(self) -> None:
        """Empty the prefix cache, before a step."""


class AsyncEntry(EntryPoint):
    """AsyncLLM: a request for each sequence, as it comes.

    Args:
        job: what is to be done.
        engine: the engine.
        looks: what it says of itself.
    """

    def __init__(self, job: Job, engine: Any, looks: EngineLooks) -> None:
        super().__init__(vocabulary_of(engine.vllm_config))
        self.looks = looks
        self._engine = engine
        self._workload = job.spec.workload
        self._drafts = drafts(job.spec)
        self._pass = 0
        self._under_way: set[int] = set()
        self._idle = asyncio.Event()
        """Set once nothing runs any more of a step whose rest was aborted."""

    async def generate(self, word: Generate) -> Outcome:
        """Return what comes of a sequence."""
        from vllm.sampling_params import RequestOutputKind

        config = self._engine.vllm_config.model_config
        kind = RequestOutputKind.FINAL_ONLY
        parameters = sampling(self._workload, config, word.output_tokens, 1, output_kind=kind)
        final: Any = None
        self._under_way.add(word.id)
        prompt = {"prompt_token_ids": word.prompt_token_ids}
        async for output in self._engine.generate(prompt, parameters, self._name(word.id)):
            final = output
        self._under_way.discard(word.id)
        outcome = outcome_of(final)
        if outcome.finish_reason == "abort":
            await self._idle.wait()  # the front end tells at once, whatever the engine core goes on with
        return outcome

    def drafting(self) -> Drafting | None:
        """Return what the engine drafted since the step began; None where it has no speculative decoding."""
        assert self.looks is not None, "this entry asks its engine"
        return (self.looks.drafting or drafting_of({})) if self._drafts else None

    async def abort(self, ids: Collection[int]) -> None:
        """Have all sequences that are under way, `ids`, end as they are, and wait until the engine is idle."""
        while left := self._under_way.intersection(ids):
            await self._engine.abort([self._name(number) for number in left])
            await asyncio.sleep(ABORT_AGAIN_S)
        while await self._engine.reset_prefix_cache() is False:  # some blocks are in use
            await asyncio.sleep(ABORT_AGAIN_S)
        self._idle.set()

    async def reset(self) -> None:
        """Empty the prefix cache, before a step; raise `RuntimeError` where it can't be."""
        self._pass += 1
        self._idle.clear()
        for _ in range(20):  # the blocks of the last request are freed a moment after its output
            if await self._engine.reset_prefix_cache() is not False:
                return
            await asyncio.sleep(0.05)
        raise RuntimeError("the prefix cache cannot be reset: blocks are still in use after all requests ended")

    def _name(self, number: int) -> str:
        return f"{self._pass}-{number}"


class LlmEntry(EntryPoint):
    """LLM.generate() over all sequences of the step that this replica gets, once they are there.

    Args:
        engine: the engine.
    """

    def __init__(self, engine: LoadedEngine) -> None:
        super().__init__(engine.vocabulary)
        self._engine = engine
        self._before: Counter[str] = Counter()
        self._waiting: list[tuple[Generate, asyncio.Future[Outcome]]] = []

    async def generate(self, word: Generate) -> Outcome:
        """Return what comes of a sequence."""
        outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.append((word, outcome))
        return await outcome

    async def handed(self) -> None:
        """Generate all that has come."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        prompts = [{"prompt_token_ids": word.prompt_token_ids} for word, _ in waiting]
        parameters = self._engine.sampling_of([word.output_tokens for word, _ in waiting], single=True)
        outputs = await asyncio.to_thread(self._engine.llm.generate, prompts, parameters, use_tqdm=False)
        for (_, outcome), output in zip(waiting, outputs, strict=True):
            outcome.set_result(outcome_of(output))

    async def reset(self) -> None:
        """Empty the prefix cache, before a step."""
        self._engine.reset_prefix_cache()
        self._before = self._engine.counters()

    def preemptions(self) -> int:
        """Return by how much the engine's own counter rose since the step began."""
        return (self._engine.counters() - self._before)["vllm:num_preemptions"]

    def drafting(self) -> Drafting | None:
        """Return by how much the engine's own counters rose since the step began; None without speculative decoding."""
        if not self._engine.drafts:
            return None
        risen = self._engine.counters()
        risen.subtract(self._before)
        return drafting_of(risen)


async def loaded_async(job: Job, tell: Tell, **more: Any) -> tuple[Any, EngineLooks]:
    """Return an AsyncLLM engine once it is loaded, of which all is told, and what it says of itself.

    Args:
        job: what is to be done.
        tell: takes each event.
        more: arguments of vLLM's that are no settings of the experiment.
    """
    start = imported(tell)
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.usage.usage_lib import UsageContext
    from vllm.v1.engine.async_llm import AsyncLLM

    looks = EngineLooks()
    # the context decides how many tokens a step may have: as a server's, which is what verl says, too
    engine = AsyncLLM.from_engine_args(
        AsyncEngineArgs(model=job.model, **{**arguments(job.spec), **more}),
        usage_context=UsageContext.OPENAI_API_SERVER,
        stat_loggers=[lambda config, index: looks],
    )
    init_s = time.perf_counter() - start.began
    config = engine.vllm_config
    told = facts_of(job.spec, await engine.collective_rpc("rollout_bench_census"), config)
    # As vLLM's server has it, whose app verl runs: collections don't go through all that was imported, 0.5 s each.
    gc.collect()
    gc.freeze()
    tell_ready(job, tell, start, init_s, told, world_size(config), vocabulary_of(config))
    return engine, looks


async def open_async(job: Job, tell: Tell) -> AsyncEntry:
    """Return the entry of an AsyncLLM engine once it is loaded, of which all is told."""
    return AsyncEntry(job, *await loaded_async(job, tell))
