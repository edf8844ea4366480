"""The engine of a rollout's replica: receives the router's sequences and returns the results."""

import asyncio
import gc
import itertools
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rollout_bench.contracts.record import AdapterFacts, Drafting
from rollout_bench.measure.engine.context import EngineContext
from rollout_bench.measure.engine.lora import adapter_facts, adapter_request, probe_of, prompt_logprobs
from rollout_bench.measure.engine.step_statistics import StepStatLogger
from rollout_bench.measure.engine.vllm import (
    EngineStart,
    arguments,
    drafting_of,
    drafts,
    import_engine,
    sampling,
    send_ready,
)
from rollout_bench.measure.launch.protocol import Job
from rollout_bench.modes.rollout.exchange import Ended


def finite(logprobs: Iterable[float | None]) -> list[float | None]:
    """Return log probabilities with None for NaN and infinity, which JSON cannot represent."""
    return [None if one is None or not math.isfinite(one) else one for one in logprobs]


def ended_of(number: int, outputs: Sequence[Any]) -> Ended:
    """Return the result of sequence `number`, from vLLM's RequestOutput of each turn; drop their log probabilities."""
    token_ids, logprobs = list[int](), list[float | None]()
    for output in outputs:
        (completion,) = output.outputs
        token_ids += completion.token_ids
        choices = zip(completion.token_ids, completion.logprobs or (), strict=False)
        logprobs += finite(at[token].logprob for token, at in choices)
        completion.logprobs = None  # many objects, which later collections would look through
    reason = outputs[-1].outputs[0].finish_reason
    return Ended(id=number, token_ids=token_ids, logprobs=logprobs or None, finish_reason=reason)


AGAIN_S = 0.02
"""Time after which an abort is repeated, in seconds."""


class AsyncEntry:
    """An AsyncLLM engine that gets one request for each turn of a sequence, as it arrives.

    Args:
        job: the job.
        engine: the engine.
        looks: collects the engine's statistics.
        adapter: vLLM's LoRARequest that each request names; None without an adapter.
    """

    def __init__(self, job: Job, engine: Any, looks: StepStatLogger, adapter: Any = None) -> None:
        self.looks, self._adapter = looks, adapter
        self._engine = engine
        self._workload = job.spec.workload
        self._running: set[str] = set()
        self.enough = asyncio.Event()
        """Set as soon as the step has enough: nothing further is to be generated in it."""
        self._drafts = drafts(job.spec)

    async def generate(self, token_ids: list[int], output_tokens: int) -> Any:
        """Generate the answer to a context and return vLLM's RequestOutput."""
        from vllm.sampling_params import RequestOutputKind

        config = self._engine.vllm_config.model_config
        kind = RequestOutputKind.FINAL_ONLY
        parameters = sampling(self._workload, config, output_tokens, 1, output_kind=kind)
        final: Any = None
        prompt = {"prompt_token_ids": token_ids}
        name = str(next(_NAMES))
        self._running.add(name)
        async for output in self._engine.generate(prompt, parameters, name, lora_request=self._adapter):
            final = output
        self._running.discard(name)
        return final

    async def abort(self) -> None:
        """End all that the engine generates; every sequence comes back with its tokens so far."""
        self.enough.set()
        while self._running:  # said again, because an abort before the engine knows its request is lost
            await self._engine.abort(list(self._running))
            await asyncio.sleep(AGAIN_S)

    def drafting(self) -> Drafting | None:
        """Return the draft counts since the start of the step; None without speculative decoding."""
        return drafting_of(self.looks.drafted) if self._drafts else None

    async def reset(self) -> None:
        """Clear the prefix cache before a step, and the mark that the last step had enough sequences.

        Raises:
            RuntimeError: if blocks are still in use.
        """
        self.enough.clear()
        for _ in range(20):  # the blocks of the last request are freed shortly after its output
            if await self._engine.reset_prefix_cache() is not False:
                return
            await asyncio.sleep(0.05)
        raise RuntimeError("the prefix cache cannot be reset: blocks are still in use after all requests ended")


_NAMES = itertools.count()
"""Names of requests, which differ over all launches that an engine measures."""


@dataclass
class KeptEngine:
    """What an engine process keeps for all its jobs.

    Attributes:
        runner: the event loop, whose end the supervisor causes.
        router: the connection to the router; None before the first job.
        opened: the engine, its statistics, its start, the seconds of its construction, the census of its ranks, and
            its adapter with the facts of it, if it has one; None before the first job.
    """

    runner: asyncio.Runner = field(default_factory=asyncio.Runner)
    router: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
    opened: tuple[Any, StepStatLogger, EngineStart, float, list[dict[str, Any]], Any, AdapterFacts | None] | None = None


async def open_async(job: Job, context: EngineContext, kept: KeptEngine) -> AsyncEntry:
    """Load an AsyncLLM engine, or take the one that is there; report it as ready, and return its entry."""
    if kept.opened is None:
        start = import_engine(context)
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.usage.usage_lib import UsageContext
        from vllm.v1.engine.async_llm import AsyncLLM

        loggers = list[StepStatLogger]()

        def logger(config: Any, index: int) -> StepStatLogger:
            loggers.append(StepStatLogger(config))
            return loggers[-1]

        # the context sets the number of tokens in a step: a server's value, as in verl
        engine = AsyncLLM.from_engine_args(
            AsyncEngineArgs(model=job.model, **arguments(job.spec, job.model)),
            usage_context=UsageContext.OPENAI_API_SERVER,
            stat_loggers=[logger],
        )
        init_s = time.perf_counter() - start.began
        ranks = await engine.collective_rpc("rollout_bench_census")
        if engine.vllm_config.observability_config.cudagraph_metrics:
            await engine.collective_rpc("rollout_bench_report_graphs")
        adapter, facts = (None, None) if job.spec.lora is None else await _with_adapter(engine, job)
        kept.opened = engine, loggers[0], start, init_s, ranks, adapter, facts
        # As in vLLM's server, which verl runs: later collections skip all imported objects and save 0.5 s each.
        gc.collect()
        gc.freeze()
    engine, looks, start, init_s, ranks, adapter, facts = kept.opened
    send_ready(job, context, start, init_s, ranks, engine.vllm_config, facts)
    return AsyncEntry(job, engine, looks, adapter)


async def _with_adapter(engine: Any, job: Job) -> tuple[Any, AdapterFacts]:
    """Make the adapter of `job`; return vLLM's LoRARequest, and what shows that the engine uses it."""
    adapter, sizes = adapter_request(job.spec, job.model)
    prompt, asked = probe_of(engine.vllm_config.model_config)
    logprobs: list[list[float]] = []
    for named in (None, adapter):
        async for output in engine.generate(prompt, asked, str(next(_NAMES)), lora_request=named):
            if output.finished:
                logprobs.append(prompt_logprobs(output))
    held = await engine.collective_rpc("rollout_bench_adapter")
    return adapter, adapter_facts(sizes, held, *logprobs)
