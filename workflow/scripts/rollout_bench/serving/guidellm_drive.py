"""Drives guidellm's scheduler through one pass: its worker processes and its clock, but our requests and times.

guidellm's own data sets, tokenizers, reports and command line are not used.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import multiprocessing.context
import os
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

from guidellm.logger import configure_logger
from guidellm.scheduler import (
    NonDistributedEnvironment,
    Scheduler,
    SchedulerState,
    SchedulerUpdateAction,
    TraceReplayStrategy,
    worker_group,
)
from guidellm.scheduler.schemas import ConversationGraph
from guidellm.scheduler.schemas.conversation_graph import GenerativeConversationGraph, GenerativeConversationNode
from guidellm.schemas import GenerationRequest, GenerationResponse, RequestInfo, RequestSettings
from guidellm.settings import LoggingSettings, Settings, settings

from rollout_bench.serving.guidellm_backend import CompletionsBackend, Wire
from rollout_bench.serving.guidellm_harness import HarnessError, Point, Request, Target

START_UP_LIMIT_S = 120.0
STOP_LIMIT_S = 30.0
CONNECT_LIMIT_S = 60.0
# More than ten processes is more than guidellm itself ever starts.
MOST_PROCESSES = 10
# So many requests a second pass through guidellm's queue to its processes on two cores, with room to spare.
HAND_OUT_PER_S = 500

Found = dict[int, tuple[GenerationResponse | None, RequestInfo]]


def processes_for(requests: list[Request], point: Point) -> int:
    """Worker processes: one fewer than there are cores, so that on two the server has one to itself."""
    cores = len(os.sched_getaffinity(0))
    return max(1, min(cores - 1, MOST_PROCESSES, len(requests), point.concurrency or len(requests)))


def _body(request: Request, target: Target) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": target.model,
        "prompt": request.prompt_token_ids if target.token_ids else request.prompt_text,
        "max_tokens": request.max_tokens,
        "stream": target.stream,
    }
    if target.stream:
        body["stream_options"] = {"include_usage": True}
    return {**body, **target.body}


def _wire(requests: list[Request], point: Point, target: Target) -> Wire:
    return Wire(
        url=target.base_url.rstrip("/") + "/completions",
        headers=target.headers,
        verify_tls=target.verify_tls,
        bodies=[_body(request, target) for request in requests],
        connect_limit_s=CONNECT_LIMIT_S,
        concurrency=point.concurrency,
        processes=processes_for(requests, point),
        lead_s=lead_s(len(requests)),
        started=multiprocessing.get_context("spawn").Value("i", 0),
    )


def _graphs(requests: list[Request], timed: bool) -> Iterator[ConversationGraph[GenerationRequest]]:
    lead = lead_s(len(requests))
    # In the order of arrival: with a limit on concurrency a later one would take the turn of an earlier one.
    for i in sorted(range(len(requests)), key=lambda i: (requests[i].due_s or 0.0) if timed else 0.0):
        due_s = requests[i].due_s if timed else None
        node = GenerativeConversationNode(
            node_id=str(i),
            agent_id="0",
            request=GenerationRequest(request_id=str(i)),
            settings=RequestSettings(relative_timestamp=None if due_s is None else lead + due_s),
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


class _Limit:
    """Ends a pass some seconds after the scheduler's start; guidellm's own counts from the first request sent."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __call__(self, state: SchedulerState, request: RequestInfo | None) -> SchedulerUpdateAction:
        if time.time() < state.start_time + self._seconds:
            return SchedulerUpdateAction()
        return SchedulerUpdateAction(request_queuing="stop", request_processing="stop_local")


def lead_s(requests: int) -> float:
    """Seconds that the requests are handed out to the worker processes, before the pass begins."""
    return 0.5 + requests / HAND_OUT_PER_S


async def drive(requests: list[Request], point: Point, target: Target, limit_s: float) -> Found:
    """What is known of each request that was handed out."""
    # The defaults, whatever a .env file in this folder or a variable of the caller's says.
    settings.__dict__.update(Settings.model_construct().__dict__)
    lead = lead_s(len(requests))
    settings.max_concurrency = len(requests)
    settings.scheduler_start_delay_non_distributed = 0.0
    configure_logger(LoggingSettings(console_log_level="WARNING", log_file_level=None))
    scheduling: Any = worker_group
    scheduling.get_context = lambda kind: SpawnContext()
    updates: AsyncIterator[Any] = Scheduler[GenerationRequest, GenerationResponse]().run(  # type: ignore[no-untyped-call]
        requests=_graphs(requests, timed=point.request_rate != "inf"),
        backend=CompletionsBackend(_wire(requests, point, target)),
        # All are handed out beforehand and wait for their time or turn in a worker process. Not guidellm's "poisson":
        # each of its processes draws from the same seed, so that gaps come in runs of equal ones, as many as there
        # are processes. Nor is there one with burstiness.
        strategy=TraceReplayStrategy(schedule_turn="timestamp"),
        env=NonDistributedEnvironment[GenerationRequest, GenerationResponse](),  # type: ignore[no-untyped-call]
        limit=_Limit(lead + limit_s),
    )
    found: Found = {}
    try:
        async with asyncio.timeout(START_UP_LIMIT_S + lead + limit_s + STOP_LIMIT_S):
            async for response, request, info, _ in updates:
                if info.status in ("completed", "errored", "cancelled"):
                    found[int(request.request_id)] = (response, info)
                # Left here and not at guidellm's own end, which it misses if the last answer is very quick.
                if len(found) == len(requests):
                    break
    except TimeoutError:
        raise HarnessError(f"guidellm did not end {STOP_LIMIT_S:.0f} s after the limit of {limit_s:.0f} s") from None
    except RuntimeError as error:
        raise HarnessError(f"guidellm failed: {error}") from error
    finally:
        await updates.aclose()  # type: ignore[attr-defined]
    return found
