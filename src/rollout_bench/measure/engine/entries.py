"""The engine of a rollout's replica: how sequences that a router hands out reach it, and what comes back of them."""

from __future__ import annotations

import asyncio
import gc
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rollout_bench.contracts.record import Drafting
from rollout_bench.measure.engine.vllm import (
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


@dataclass(frozen=True)
class Outcome:
    """What came of a sequence. Moments are on the monotonic clock, in seconds; None where nobody knows.

    Attributes:
        token_ids: what was generated.
        logprobs: log probability of each of these, None for one that is no number; None where none were returned.
        finish_reason: why it ended.
        prompt_tokens: tokens of the prompt, as the engine counts them.
        cached_prompt_tokens: of these, taken from the prefix cache.
        queued, scheduled, first_token, last_token: as a row of the side file has them.
    """

    token_ids: list[int]
    logprobs: list[float | None] | None
    finish_reason: str | None
    prompt_tokens: int
    cached_prompt_tokens: int | None
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


class AsyncEntry:
    """AsyncLLM: a request for each sequence, as it comes.

    Args:
        job: what is to be done.
        engine: the engine.
        looks: what it says of itself.
    """

    def __init__(self, job: Job, engine: Any, looks: EngineLooks) -> None:
        self.looks = looks
        self._engine = engine
        self._workload = job.spec.workload
        self._drafts = drafts(job.spec)
        self._pass = 0

    async def generate(self, word: Generate) -> Outcome:
        """Return what comes of a sequence."""
        from vllm.sampling_params import RequestOutputKind

        config = self._engine.vllm_config.model_config
        kind = RequestOutputKind.FINAL_ONLY
        parameters = sampling(self._workload, config, word.output_tokens, 1, output_kind=kind)
        final: Any = None
        prompt = {"prompt_token_ids": word.prompt_token_ids}
        async for output in self._engine.generate(prompt, parameters, self._name(word.id)):
            final = output
        return outcome_of(final)

    def drafting(self) -> Drafting | None:
        """Return what the engine drafted since the step began; None where it has no speculative decoding."""
        return (self.looks.drafting or drafting_of({})) if self._drafts else None

    async def reset(self) -> None:
        """Empty the prefix cache, before a step; raise `RuntimeError` where it can't be."""
        self._pass += 1
        for _ in range(20):  # the blocks of the last request are freed a moment after its output
            if await self._engine.reset_prefix_cache() is not False:
                return
            await asyncio.sleep(0.05)
        raise RuntimeError("the prefix cache cannot be reset: blocks are still in use after all requests ended")

    def _name(self, number: int) -> str:
        return f"{self._pass}-{number}"


async def open_async(job: Job, tell: Tell) -> AsyncEntry:
    """Return the entry of an AsyncLLM engine once it is loaded, of which all is told."""
    start = imported(tell)
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.usage.usage_lib import UsageContext
    from vllm.v1.engine.async_llm import AsyncLLM

    looks = EngineLooks()
    # the context decides how many tokens a step may have: as a server's, which is what verl says, too
    engine = AsyncLLM.from_engine_args(
        AsyncEngineArgs(model=job.model, **arguments(job.spec)),
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
    return AsyncEntry(job, engine, looks)
