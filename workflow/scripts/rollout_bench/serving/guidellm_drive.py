"""Drives guidellm's scheduler through one pass: its worker processes and its clock, but our requests and times.

guidellm's own data sets, tokenizers, reports and command line are not used.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import multiprocessing.context
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import psutil
from guidellm.logger import configure_logger
from guidellm.scheduler import NonDistributedEnvironment, Scheduler, TraceReplayStrategy, worker_group
from guidellm.scheduler.schemas import ConversationGraph
from guidellm.scheduler.schemas.conversation_graph import GenerativeConversationGraph, GenerativeConversationNode
from guidellm.schemas import GenerationRequest, GenerationResponse, RequestInfo, RequestSettings
from guidellm.settings import LoggingSettings, Settings, settings

from rollout_bench.serving.answers import Question
from rollout_bench.serving.guidellm_backend import CompletionsBackend, Wire
from rollout_bench.serving.target import Outcome, ServingFailed, Target

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

    outcomes: dict[int, Outcome]
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
        {number: Outcome(**(response.response_metrics or {})) for number, (response, _) in ended.items() if response},
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
