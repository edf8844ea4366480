"""What runs inside guidellm's worker processes: a request goes out, the times of its chunks come back.

guidellm's own backend sends the request, reads the lines and takes the times. What it lacks is added here: prompts as
token ids, the time between every two chunks, the finish reason and the HTTP status.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import resource
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
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

LOOPBACK = ("127.0.0.1", "localhost", "::1")

Steps = AsyncIterator[tuple[GenerationResponse | None, RequestInfo]]


@dataclass(frozen=True, repr=False)
class Wire:
    """Everything a worker process needs; pickled to it once, so that a request travels as its number alone.

    Args:
        url: address that completions are posted to.
        headers: sent with every request; never shown, a key may be among them.
        verify_tls: whether the server's certificate is checked.
        bodies: the JSON of each request.
        connect_limit_s: longest wait for a connection.
        concurrency: most requests at a time over all processes; None for no limit.
        processes: number of worker processes, not more than `concurrency`.
        lead_s: seconds from the scheduler's start to the beginning of the pass.
        started: counts the worker processes that have begun, so that each knows its share of `concurrency`.
    """

    url: str
    headers: dict[str, str]
    verify_tls: bool
    bodies: list[dict[str, Any]]
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
    """Reads the answer to one request of /v1/completions."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._stamps: list[float] = []
        self._usage: dict[str, Any] = {}
        self._finish_reason: str | None = None
        self._status: int | None = None

    def add_streaming_line(self, line: str) -> int | None:
        """Takes the time of a chunk; returns 1 for one with tokens, 0 for another, None at the end of the stream.

        guidellm counts a chunk only if it has text. A token may have none (part of a character, a special token, a
        server without a tokenizer), so here every chunk with a choice counts, as in `vllm bench serve`.
        """
        now = time.monotonic()
        self._status = 200
        data = self.extract_line_data(line)
        if not data:
            return None if data is None else 0
        self._usage = data.get("usage") or self._usage
        choices = data.get("choices")
        if not choices:
            return 0
        self._finish_reason = choices[0].get("finish_reason") or self._finish_reason
        if choices[0].get("token_ids") == []:
            return 0
        self._stamps.append(now)
        return 1

    def compile_streaming(
        self, request: GenerationRequest, arguments: GenerationRequestArguments
    ) -> GenerationResponse:
        """What the stream brought until now."""
        return self.found(request)

    def compile_non_streaming(
        self, request: GenerationRequest, arguments: GenerationRequestArguments, response: dict[str, Any]
    ) -> GenerationResponse:
        """What an answer in one piece brought."""
        self._status = 200
        self._usage = response.get("usage") or {}
        choices = response.get("choices") or [{}]
        self._finish_reason = choices[0].get("finish_reason")
        return self.found(request)

    def post_validation(self, response: GenerationResponse) -> None:
        """Refuses an answer that broke off: the connection may be closed in good order by a server that fails.

        Raises:
            ValueError: the answer has no finish reason.
        """
        if self._finish_reason is None:
            raise ValueError("the answer ended without a finish_reason")

    def failed(self, error: Exception) -> None:
        """Keeps the HTTP status of an answer that is none."""
        if isinstance(error, httpx.HTTPStatusError):
            self._status = error.response.status_code

    def found(self, request: GenerationRequest) -> GenerationResponse:
        """The values as guidellm carries them; without the text, which nobody asks for."""
        stamps = self._stamps
        return GenerationResponse(
            request_id=request.request_id,
            request_args=None,
            response_metrics={
                "gaps": [after - before for before, after in itertools.pairwise(stamps)],
                "prompt_tokens": self._usage.get("prompt_tokens"),
                "output_tokens": self._usage.get("completion_tokens"),
                "finish_reason": self._finish_reason,
                "status": self._status,
            },
        )


class CompletionsBackend(OpenAIHTTPBackend):
    """guidellm's HTTP backend, posting the bodies of a `Wire`; request `i` is named `str(i)`."""

    def __init__(self, wire: Wire) -> None:
        super().__init__(
            OpenAIHTTPBackendArgs(
                target=wire.url,
                model="unused",
                request_format="/v1/completions",
                timeout_connect=wire.connect_limit_s,
                # vLLM's server speaks HTTP/1.1; what it is compared with must not depend on a proxy's offer.
                http2=False,
                # Another host is none that was named: it would be measured, and sent the headers.
                follow_redirects=False,
                verify=wire.verify_tls,
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
        if urlsplit(self._wire.url).hostname in LOOPBACK:
            os.environ["NO_PROXY"] = os.environ["no_proxy"] = ",".join(LOOPBACK)
        # The first connection imports anyio's event loop backend, which would hold the first request back by 60 ms.
        await anyio.sleep(0)
        await super().process_startup()  # type: ignore[no-untyped-call]

    async def resolve(  # type: ignore[override, misc]
        self, request: GenerationRequest, request_info: RequestInfo, history: object = None
    ) -> Steps:
        """Sends a request when its turn comes and reads its answer.

        The limit on concurrency is here and not in guidellm's scheduler, which would ask its main process for the next
        request when one is done: with two busy cores that took up to 0.4 s. A semaphore keeps the order.

        Raises:
            Exception: whatever broke the request, after what had come until then was yielded.
        """
        body = self._wire.bodies[int(request.request_id)]
        handler = CompletionsHandler()
        sent = {"url": self._wire.url, "method": "POST", "headers": self._wire.headers, "json": body}
        read = self._resolve_streaming if body.get("stream") else self._resolve_non_streaming
        async with self._turn:
            # A request without an arrival time is here early, and in the order of the list.
            await asyncio.sleep(request_info.scheduler_start_time + self._wire.lead_s - time.time())
            try:
                async for step in read(request, request_info, handler, GenerationRequestArguments(), sent):
                    # The news of a first token, for a progress bar, would cost the two processes a message each.
                    if step[0] is not None:
                        yield step
            except Exception as error:
                handler.failed(error)
                yield handler.found(request), request_info
                raise
