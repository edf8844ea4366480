"""What runs inside guidellm's worker processes: a request goes out, what became of it comes back.

guidellm's own backend sends the request and reads the lines; the lines are taken apart as those of every harness are
(`stream.py`), with the time of each piece, which guidellm does not keep.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import asdict, dataclass
from multiprocessing.sharedctypes import Synchronized
from typing import Any
from urllib.parse import urlsplit

import anyio
import httpx
from guidellm.backends.openai.http import OpenAIHTTPBackend
from guidellm.backends.openai.request_handlers import TextCompletionsRequestHandler
from guidellm.schemas import GenerationRequest, GenerationRequestArguments, GenerationResponse, RequestInfo
from guidellm.schemas.backends import OpenAIHTTPBackendArgs

from rollout_bench.engines.processes import die_with_parent
from rollout_bench.serving.answers import Question, Unusable, check_head, too_long
from rollout_bench.serving.stream import Answer, read_whole
from rollout_bench.serving.target import Outcome, Target

LOOPBACK = ("127.0.0.1", "localhost", "::1")

Steps = AsyncIterator[tuple[GenerationResponse | None, RequestInfo]]


@dataclass(frozen=True, repr=False)
class Wire:
    """Everything a worker process needs; pickled to it once, so that a request travels as its number alone.

    Args:
        target: the server.
        questions: the requests.
        connect_limit_s: longest wait for a connection.
        concurrency: most requests at a time over all processes; None for no limit.
        processes: number of worker processes, not more than `concurrency`.
        lead_s: seconds from the scheduler's start to the beginning of the pass.
        started: counts the worker processes that have begun, so that each knows its share of `concurrency`.
    """

    target: Target
    questions: list[Question]
    connect_limit_s: float
    concurrency: int | None
    processes: int
    lead_s: float
    started: Synchronized[int]

    def share(self) -> int | None:
        """How many requests at a time are for the worker process that asks; to be asked once by each."""
        with self.started.get_lock():
            rank = self.started.value
            self.started.value += 1
        if self.concurrency is None:
            return None
        return self.concurrency // self.processes + (rank < self.concurrency % self.processes)


class CompletionsHandler(TextCompletionsRequestHandler):
    """Reads the answer to one request of /v1/completions.

    guidellm counts a chunk only if it has text. A token may have none (part of a character, a special token, a server
    without a tokenizer), so here those count that have token ids, as with every harness.
    """

    def __init__(self, target: Target, question: Question) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.outcome = Outcome(streamed=target.stream)
        self._target = target
        self._question = question
        self._answer = Answer(question, self.outcome)

    def add_streaming_line(self, line: str) -> int | None:
        """Takes a line; returns how many tokens are in it, None at the end of the stream."""
        self.outcome.status = 200
        before = len(self.outcome.piece_tokens)
        if not self._answer.take(line.encode(), time.monotonic()):
            return None
        return sum(self.outcome.piece_tokens[before:])

    def compile_streaming(
        self, request: GenerationRequest, arguments: GenerationRequestArguments
    ) -> GenerationResponse:
        """What the stream brought until now."""
        self.outcome.ended_s = time.monotonic()
        self._answer.end()
        return self.found(request)

    def compile_non_streaming(
        self, request: GenerationRequest, arguments: GenerationRequestArguments, response: dict[str, Any]
    ) -> GenerationResponse:
        """What an answer in one piece brought."""
        self.outcome.status = 200
        read_whole(json.dumps(response).encode(), self._question, self.outcome)
        self.outcome.ended_s = time.monotonic()
        return self.found(request)

    def post_validation(self, response: GenerationResponse) -> None:
        """Nothing: what is wrong with an answer stands in its outcome."""

    def failed(self, error: Exception) -> None:
        """Keeps why there is no answer, or no whole one."""
        self.outcome.ended_s = time.monotonic()
        if isinstance(error, Unusable):
            self.outcome.status, self.outcome.error = error.status, str(error)
        else:
            self.outcome.error = f"{type(error).__name__}: {error}".rstrip(": ")

    def found(self, request: GenerationRequest) -> GenerationResponse:
        """The outcome as guidellm carries it; without the text, which nobody asks for."""
        self._target.settle(self.outcome)
        return GenerationResponse(
            request_id=request.request_id, request_args=None, response_metrics=asdict(self.outcome)
        )


class Bounded(httpx.AsyncByteStream):
    """A stream that raises `Unusable` once more than `most` bytes of it have come."""

    def __init__(self, stream: httpx.AsyncByteStream, most: int) -> None:
        self._stream = stream
        self._most = most

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = self._most
        async for data in self._stream:
            left -= len(data)
            if left < 0:
                raise too_long(self._most)
            yield data

    async def aclose(self) -> None:
        """Close the stream."""
        await self._stream.aclose()


class CompletionsBackend(OpenAIHTTPBackend):
    """guidellm's HTTP backend, posting the bodies of a `Wire`; request `i` is named `str(i)`."""

    def __init__(self, wire: Wire) -> None:
        super().__init__(
            OpenAIHTTPBackendArgs(
                target=wire.target.url,
                model="unused",
                request_format="/v1/completions",
                timeout_connect=wire.connect_limit_s,
                # vLLM's server speaks HTTP/1.1; what it is compared with must not depend on a proxy's offer.
                http2=False,
                # Another host is none that was named: it would be measured, and sent the headers.
                follow_redirects=False,
                verify=wire.target.verify_tls,
                validate_backend=False,
            )
        )
        self._wire = wire
        self._turn: AbstractAsyncContextManager[Any] = nullcontext()

    @property
    def processes_limit(self) -> int:
        """Most worker processes."""
        return self._wire.processes

    async def process_startup(self) -> None:
        """Prepares a worker process: it dies with its parent, may open many sockets, and asks no proxy for loopback."""
        die_with_parent(signal.SIGKILL)
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        share = self._wire.share()
        if share is not None:
            self._turn = asyncio.Semaphore(share)
        if urlsplit(self._wire.target.url).hostname in LOOPBACK:
            os.environ["NO_PROXY"] = os.environ["no_proxy"] = ",".join(LOOPBACK)
        # The first connection imports anyio's event loop backend, which would hold the first request back by 60 ms.
        await anyio.sleep(0)
        await super().process_startup()  # type: ignore[no-untyped-call]
        assert self._async_client is not None, "made by what was just called"
        self._async_client.event_hooks = {"response": [self._check]}

    async def _check(self, response: httpx.Response) -> None:
        """Look at the head of an answer before guidellm reads on; bound what it reads then."""
        question = self._wire.questions[int(response.request.headers["X-Request-Id"])]
        assert isinstance(response.stream, httpx.AsyncByteStream), "what an asynchronous client is answered with"
        body = Bounded(response.stream, question.answer_bytes)
        await check_head(response.status_code, response.reason_phrase, response.headers, aiter(body))
        response.stream = body

    async def resolve(  # type: ignore[override, misc]
        self, request: GenerationRequest, request_info: RequestInfo, history: object = None
    ) -> Steps:
        """Sends a request when its turn comes and reads its answer; a failure is an outcome, too.

        The limit on concurrency is here and not in guidellm's scheduler, which would ask its main process for the next
        request when one is done: with two busy cores that took up to 0.4 s. A semaphore keeps the order.
        """
        target, question = self._wire.target, self._wire.questions[int(request.request_id)]
        handler = CompletionsHandler(target, question)
        headers = {
            "Content-Type": "application/json",
            **target.headers,
            "Accept-Encoding": "identity",
            "X-Request-Id": request.request_id,
        }
        sent = {"url": f"{target.url}/completions", "method": "POST", "headers": headers, "content": question.body}
        read = self._resolve_streaming if target.stream else self._resolve_non_streaming
        async with self._turn:
            # A request without an arrival time is here early, and in the order of the list.
            await asyncio.sleep(request_info.scheduler_start_time + self._wire.lead_s - time.time())
            # guidellm takes times from the wall clock.
            monotonic_s = time.monotonic() - time.time()
            try:
                async for step in read(request, request_info, handler, GenerationRequestArguments(), sent):
                    # The news of a first token, for a progress bar, would cost the two processes a message each.
                    if step[0] is None:
                        continue
            except Exception as error:
                handler.failed(error)
            if (started := request_info.timings.request_start) is not None:
                handler.outcome.sent_s = started + monotonic_s
            yield handler.found(request), request_info
