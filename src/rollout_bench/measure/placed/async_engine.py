"""An AsyncLLM whose methods wait, as those of `LLM` do: a rank does one thing after the other.

Its core is in a process of its own; each sequence is a request of its own, as verl and servers send them.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from rollout_bench.measure.engine.entries import EngineLooks, loaded_async
from rollout_bench.measure.engine.vllm import LoadedEngine
from rollout_bench.measure.launch.protocol import Job, Tell


class WaitingLLM:
    """What is asked of vLLM's `LLM` here, of an AsyncLLM.

    Args:
        engine: it.
        looks: what it says of itself.
        loop: where it lives; it goes on only while something is waited for.
    """

    def __init__(self, engine: Any, looks: EngineLooks, loop: asyncio.AbstractEventLoop) -> None:
        self.llm_engine = SimpleNamespace(vllm_config=engine.vllm_config)
        self._engine, self._looks, self._loop = engine, looks, loop
        self._numbers = itertools.count()

    def generate(self, prompts: Sequence[Any], parameters: Any, *, use_tqdm: bool) -> list[Any]:
        """Return vLLM's outputs, in the order of `prompts`; `parameters` are of all, or one for each."""
        del use_tqdm
        each = parameters if isinstance(parameters, list) else [parameters] * len(prompts)
        return self._loop.run_until_complete(self._all(prompts, each))

    async def _all(self, prompts: Sequence[Any], parameters: Sequence[Any]) -> list[Any]:
        return list(await asyncio.gather(*map(self._one, prompts, parameters)))

    async def _one(self, prompt: Any, parameters: Any) -> Any:
        from vllm.sampling_params import RequestOutputKind

        final = None
        own = copy.copy(parameters)
        own.output_kind = RequestOutputKind.FINAL_ONLY
        async for output in self._engine.generate(prompt, own, str(next(self._numbers))):
            final = output
        return final

    def collective_rpc(self, method: str, kwargs: dict[str, Any] | None = None) -> list[Any]:
        """Return what the workers return."""
        return list(self._loop.run_until_complete(self._engine.collective_rpc(method, kwargs=kwargs)))

    def reset_prefix_cache(self) -> bool:
        """Empty the prefix cache; return False where blocks are in use."""
        return self._loop.run_until_complete(self._engine.reset_prefix_cache()) is not False

    def get_metrics(self) -> list[Any]:
        """Return the engine's own counter of preemptions; how much of a prompt was cached, its sequence says."""
        return [SimpleNamespace(name="vllm:num_preemptions", value=self._looks.preemptions)]


def loaded_waiting(job: Job, tell: Tell, **more: Any) -> LoadedEngine:
    """Return the engine of `job`, an AsyncLLM, of which all is told.

    Args:
        job: what is to be done.
        tell: takes each event.
        more: arguments of vLLM's that are no settings of the experiment.
    """
    loop = asyncio.new_event_loop()
    engine, looks = loop.run_until_complete(loaded_async(job, tell, **more))
    return LoadedEngine(job.spec, WaitingLLM(engine, looks, loop))
