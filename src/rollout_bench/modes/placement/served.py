"""vLLM's server as the engine of a rank: requests and the worker's methods over HTTP, as in TRL's server mode."""

import asyncio
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import aiohttp

from rollout_bench.contracts.load import LoadPoint, LoadSpec
from rollout_bench.measure.engine.context import EngineContext
from rollout_bench.measure.launch.protocol import Job
from rollout_bench.measure.server.served import opened_server
from rollout_bench.measure.server.server_metrics import parse
from rollout_bench.measure.server.session import check_answer, from_workers
from rollout_bench.measure.server.stream import open_session

LOAD = LoadSpec(points=(LoadPoint(request_rate="inf"),), token_ids=True, harness="rollout-bench")
"""Prompts as token ids, all sequences at once."""


class ServedEngine:
    """What a placement uses of `LoadedEngine`, by a server that this process starts; `llm` is the object itself.

    Args:
        job: the rank's job.
        context: the engine process.
        more: engine arguments that are not settings of the experiment.

    Raises:
        MeasuringFailed: if the server ends or refuses a request.
    """

    def __init__(self, job: Job, context: EngineContext, **more: Any) -> None:
        job = job.model_copy(update={"spec": job.spec.model_copy(update={"load": LOAD})})
        self._opened, self._limit_s = opened_server(job, context, **more), job.timeout_s
        self._target = self._opened.target
        self.vocabulary = self._opened.vocabulary
        self.context_tokens = int(self._opened.facts.resolved["max_model_len"])
        self.block_tokens: int | None = self._opened.facts.resolved.get("block_size")
        self.llm = self

    def sampling_of(self, output_tokens: list[int]) -> list[int]:
        """Return the requests' own part: the number of tokens of each."""
        return output_tokens

    def generate(self, prompts: Sequence[Mapping[str, list[int]]], sampling: list[int], use_tqdm: bool) -> list[Any]:
        """Return the answers of one request for each prompt, sent together, in the form of vLLM's outputs."""
        return self._answers(
            [
                self._target.asking(prompt["prompt_token_ids"], tokens)
                for prompt, tokens in zip(prompts, sampling, strict=True)
            ]
        )

    def greedy(self, prompts: Sequence[list[int]], tokens: int) -> list[list[int]]:
        """Return the most likely tokens after each prompt."""
        self.reset_prefix_cache()
        asked = [self._target.asking(prompt, tokens) | {"temperature": 0.0, "ignore_eos": True} for prompt in prompts]
        return [answer.outputs[0].token_ids for answer in self._answers(asked)]

    def cached_tokens(self, prompt: list[int]) -> int:
        """Generate a token after a prompt; return the prompt tokens that came from the prefix cache."""
        (answer,) = self._answers([self._target.asking(prompt, 1) | {"temperature": 0.0}])
        return int(answer.cached_tokens)

    def collective_rpc(self, method: str, kwargs: Mapping[str, Any]) -> list[Any]:
        """Return what the method of each worker returns, as JSON has it."""
        with self._opened.between_passes():
            return from_workers(self._opened.connection, method, self._limit_s, **kwargs)

    def reset_prefix_cache(self) -> None:
        """Clear the prefix cache."""
        with self._opened.between_passes():
            self._opened.reset()

    def counters(self) -> Counter[str]:
        """Return the server's own counters, by vLLM's names."""
        with self._opened.between_passes():
            metrics = parse(self._opened.connection.metrics())
        return Counter(
            {name.removesuffix("_total"): round(n) for name, n in metrics.items() if name.endswith("_total")}
        )

    def stop(self) -> None:
        """End the server."""
        self._opened.stop()

    def _answers(self, asked: Sequence[dict[str, Any]]) -> list[Any]:
        with self._opened.between_passes():
            try:
                return asyncio.run(self._all(asked))
            except aiohttp.ClientError as error:
                raise ConnectionError(self._target.quoted(str(error))) from None

    async def _all(self, asked: Sequence[dict[str, Any]]) -> list[Any]:
        async with open_session(self._target.verify_tls) as session:
            return await asyncio.gather(*(self._answer(session, body) for body in asked))

    async def _answer(self, session: aiohttp.ClientSession, body: dict[str, Any]) -> Any:
        async with session.post(self._target.asked_at, json=body, headers=self._target.headers) as response:
            text = await response.text()
        check_answer(response.status, text, self._target)
        said = json.loads(text)
        (choice,), details = said["choices"], said["usage"].get("prompt_tokens_details")
        completion = SimpleNamespace(token_ids=choice["token_ids"], finish_reason=choice["finish_reason"])
        # the times at which the engine scheduled a sequence do not pass through HTTP
        return SimpleNamespace(
            prompt_token_ids=body["prompt"],
            outputs=[completion],
            num_cached_tokens=None,  # a pass has the server's own counter
            cached_tokens=(details or {}).get("cached_tokens") or 0,  # the server leaves none out
            metrics=None,
        )
