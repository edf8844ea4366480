"""guidellm's scheduler driven through one pass, and what runs inside its worker processes.

guidellm's own backend sends the request and reads the lines; the lines are taken apart as those of every harness are
(`stream.py`), with the time of each piece, which guidellm does not keep.

guidellm's own data sets, tokenizers, reports and command line are not used.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import multiprocessing.context
import os
import resource
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import asdict, dataclass
from multiprocessing.sharedctypes import Synchronized
from typing import Any, ClassVar, TypeVar
from urllib.parse import urlsplit

import anyio
import httpx
import psutil
from guidellm.backends.openai.http import OpenAIHTTPBackend
from guidellm.backends.openai.request_handlers import TextCompletionsRequestHandler
from guidellm.logger import configure_logger
from guidellm.scheduler import NonDistributedEnvironment, Scheduler, TraceReplayStrategy, worker_group
from guidellm.scheduler.schemas import ConversationGraph
from guidellm.scheduler.schemas.conversation_graph import GenerativeConversationGraph, GenerativeConversationNode
from guidellm.schemas import (
    GenerationRequest,
    GenerationRequestArguments,
    GenerationResponse,
    RequestInfo,
    RequestSettings,
)
from guidellm.schemas.backends import OpenAIHTTPBackendArgs
from guidellm.settings import LoggingSettings, Settings, settings

from rollout_bench.core.processes import die_with_parent
from rollout_bench.measure.server.stream import (
    Answer,
    Question,
    RequestOutcome,
    ServingFailed,
    Target,
    Unusable,
    check_head,
    read_whole,
    too_long,
)

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
        self.outcome = RequestOutcome(streamed=target.stream)
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


CONNECT_LIMIT_S = 60.0
# More than ten processes is more than guidellm itself ever starts.
MOST_PROCESSES = 10
# So many requests a second pass through guidellm's queue to its processes on two cores, with room to spare.
HAND_OUT_PER_S = 500

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")


@dataclass
class Driven:
    """What a pass brought.

    Attributes:
        outcomes: those of the requests, by their number.
        began_s: when the first request could be sent, on the monotonic clock.
        cpu_s: CPU time from then on of the busiest of this process and guidellm's.
        measured_s: how long that was.
    """

    outcomes: dict[int, RequestOutcome]
    began_s: float = 0.0
    cpu_s: float = 0.0
    measured_s: float = 0.0


def processes_for(requests: int, concurrency: int | None) -> int:
    """Worker processes: one fewer than there are cores, so that on two the server has one to itself."""
    cores = len(os.sched_getaffinity(0))
    return max(1, min(cores - 1, MOST_PROCESSES, requests, concurrency or requests))


def lead_s(requests: int) -> float:
    """Seconds that the requests are handed out to the worker processes, before the pass begins."""
    return 0.5 + requests / HAND_OUT_PER_S


def _wire(questions: list[Question], concurrency: int | None, target: Target) -> Wire:
    return Wire(
        target=target,
        questions=questions,
        connect_limit_s=CONNECT_LIMIT_S,
        concurrency=concurrency,
        processes=processes_for(len(questions), concurrency),
        lead_s=lead_s(len(questions)),
        started=multiprocessing.get_context("spawn").Value("i", 0),
    )


def _graphs(count: int, due_s: Sequence[float] | None) -> Iterator[ConversationGraph[GenerationRequest]]:
    lead = lead_s(count)
    # In the order of arrival: with a limit on concurrency a later one would take the turn of an earlier one.
    for i in sorted(range(count), key=lambda i: 0.0 if due_s is None else due_s[i]):
        node = GenerativeConversationNode(
            node_id=str(i),
            agent_id="0",
            request=GenerationRequest(request_id=str(i)),
            settings=RequestSettings(relative_timestamp=None if due_s is None else lead + due_s[i]),
        )
        yield GenerativeConversationGraph(graph_id=str(i), nodes={node.node_id: node})


class _NoManager:
    """In place of a process that guidellm starts and, with queues between its processes, does not use."""

    def shutdown(self) -> None:
        """Nothing is to be ended."""


class SpawnContext(multiprocessing.context.SpawnContext):
    """Starts processes as guidellm has them started, without that manager: it would outlive a kill -9 of this one."""

    def Manager(self) -> Any:  # noqa: N802
        """Something that can be shut down."""
        return _NoManager()


Used = tuple[dict[int, float], float]
"""CPU time by pid, in seconds, and when that was."""


def _cpu_s() -> dict[int, float]:
    """CPU time so far of this process and of those that guidellm started, by pid; a server of ours is none of them."""
    found = {os.getpid(): time.process_time()}
    for child in multiprocessing.active_children():
        try:
            used = psutil.Process(child.pid).cpu_times()
        except psutil.Error:
            continue
        found[child.pid or 0] = used.user + used.system
    return found


class _State(worker_group.WorkerGroupState[RequestT, ResponseT]):
    """guidellm's own, that also tells of a request's end where this process first hears of it.

    Between there and whoever iterates over the scheduler's updates an end can get lost: the thread that hears of the
    last one lets the iteration end before it has passed it on. With busy cores that was seen.
    """

    ended: ClassVar[Callable[[int, GenerationResponse | None, RequestInfo], None]]

    def received_callback(self, update: Any) -> Any:
        """Called in guidellm's thread for each update that a worker process sends."""
        response, request, info = update
        if info.status in ("completed", "errored", "cancelled"):
            _State.ended(int(request.request_id), response, info)
        return super().received_callback(update)


async def drive(
    questions: list[Question], due_s: Sequence[float] | None, concurrency: int | None, target: Target
) -> Driven:
    """Sends every request once and waits for all answers.

    Raises:
        ServingFailed: guidellm failed, and nothing is known about the requests.
    """
    # The defaults, whatever a .env file in this folder or a variable of the caller's says.
    settings.__dict__.update(Settings.model_construct().__dict__)
    settings.max_concurrency = len(questions)
    settings.scheduler_start_delay_non_distributed = 0.0
    configure_logger(LoggingSettings(console_log_level="WARNING", log_file_level=None))
    ended: dict[int, tuple[GenerationResponse | None, RequestInfo]] = {}
    loop, all_ended = asyncio.get_running_loop(), asyncio.Event()

    def end(number: int, response: GenerationResponse | None, info: RequestInfo) -> None:
        ended[number] = (response, info)
        if len(ended) == len(questions):
            loop.call_soon_threadsafe(all_ended.set)

    scheduling: Any = worker_group
    scheduling.get_context = lambda kind: SpawnContext()
    scheduling.WorkerGroupState = _State
    _State.ended = staticmethod(end)
    updates: AsyncIterator[Any] = Scheduler[GenerationRequest, GenerationResponse]().run(  # type: ignore[no-untyped-call]
        requests=_graphs(len(questions), due_s),
        backend=CompletionsBackend(_wire(questions, concurrency, target)),
        # All are handed out beforehand and wait for their time or turn in a worker process. Not guidellm's "poisson":
        # each of its processes draws from the same seed, so that gaps come in runs of equal ones, as many as there
        # are processes. Nor is there one with burstiness.
        strategy=TraceReplayStrategy(schedule_turn="timestamp"),
        env=NonDistributedEnvironment[GenerationRequest, GenerationResponse](),  # type: ignore[no-untyped-call]
    )
    watching: list[asyncio.Task[Used]] = []
    running = asyncio.create_task(_run(updates, lead_s(len(questions)), watching))
    waiting = asyncio.create_task(all_ended.wait())
    # Not until guidellm's own end, which it misses if the last answer is very quick.
    await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
    cpu_s, now_s = _cpu_s(), time.monotonic()
    for task in (waiting, running, *watching):
        task.cancel()
    failed, *before = await asyncio.gather(running, *watching, return_exceptions=True)
    if len(ended) < len(questions) or any(response is None for response, _ in ended.values()):
        said = next((info.error for _, info in ended.values() if info.error), None) or failed
        cause = f"guidellm failed with {len(ended)} of {len(questions)} requests done: {said}"
        raise ServingFailed("load_generator", cause, "look into the log, or set harness: vllm")
    info = ended[0][1]
    driven = Driven(
        {
            number: RequestOutcome(**(response.response_metrics or {}))
            for number, (response, _) in ended.items()
            if response
        },
        began_s=info.scheduler_start_time + lead_s(len(questions)) + time.monotonic() - time.time(),
    )
    for seen in before:
        if isinstance(seen, tuple):
            # A core is what one process can have, so the busiest is what may be too slow.
            driven.cpu_s = max(used - seen[0].get(pid, 0.0) for pid, used in cpu_s.items())
            driven.measured_s = now_s - seen[1]
    return driven


async def _run(updates: AsyncIterator[Any], lead: float, watching: list[asyncio.Task[Used]]) -> None:
    """Lets guidellm run; cancelled, it ends its processes."""
    try:
        async for _, _, info, _ in updates:
            if not watching:
                watching.append(asyncio.create_task(_cpu_at(info.scheduler_start_time + lead - time.time())))
    finally:
        await updates.aclose()  # type: ignore[attr-defined]


async def _cpu_at(after_s: float) -> Used:
    """CPU time and the monotonic clock when the requests begin; what starting the processes took is no part of it."""
    await asyncio.sleep(after_s)
    return _cpu_s(), time.monotonic()
