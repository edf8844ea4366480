"""Sends requests at given times, or each when an earlier request ends; for a time, or a number of requests.

When the time is over, running requests are cut.
"""

import asyncio
import contextlib
import gc
import json
import resource
import secrets
import time
from collections.abc import Callable, Sequence

import aiohttp

from rollout_bench.contracts.record import ClientUse
from rollout_bench.measure.server.stream import (
    TEMPLATE_TOKENS,
    Load,
    LoadPass,
    Prompt,
    Question,
    RequestOutcome,
    Target,
    open_session,
    send,
)
from rollout_bench.workloads.requests import Request

LOOK_S = 0.01
"""Interval between checks of the event loop's lateness, in seconds."""

FAILED_PAUSE_S = 0.05
"""Pause of a user after a failed request, in seconds, to avoid flooding a server that refuses everything."""


def prepared_requests(requests: Sequence[Request], prompts: Sequence[Prompt], target: Target) -> list[Question]:
    """Return each request with its body, prepared before the pass so that it costs no measured time."""
    how, added = {"stream": True, "stream_options": {"include_usage": True}}, TEMPLATE_TOKENS * target.chat
    return [
        Question(
            json.dumps({**target.asking(prompt, request.output_tokens), **how}).encode(), request.output_tokens, added
        )
        for request, prompt in zip(requests, prompts, strict=True)
    ]


def open_files() -> None:
    """Raise the limit of open files of this process and its children, because each request is an open file."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def prepare(load: Load, target: Target) -> Callable[[], LoadPass]:
    """Prepare sending `load` to `target`; return a function that sends it once."""
    open_files()
    return _Generator(load, target).run


class _Generator:
    def __init__(self, load: Load, target: Target) -> None:
        self._load = load
        self._target = target
        self._questions = prepared_requests(load.requests, load.prompts, target)
        self._order = load.order()
        self._sent: list[tuple[tuple[int, int], RequestOutcome]] = []
        self._late_s: list[float] = []
        self._began_s = 0.0
        self._until_s = float("inf")
        self._limit: asyncio.Semaphore | contextlib.nullcontext[None] = contextlib.nullcontext()
        self._name = secrets.token_hex(4)  # unique among the requests at that server

    def run(self) -> LoadPass:
        """Send the load once."""
        before_s, cpu_before_s = time.monotonic(), time.process_time()
        gc.collect()
        gc.disable()  # with thousands of open answers, a collection takes longer than a token
        try:
            ended_s = asyncio.run(self._send_all())
        finally:
            gc.enable()
        cpu_share = (time.process_time() - cpu_before_s) / (time.monotonic() - before_s)
        client = ClientUse.of(cpu_share, self._late_s, LOOK_S)
        numbers, outcomes = [number for number, _ in self._sent], [outcome for _, outcome in self._sent]
        return LoadPass(self._began_s, max(ended_s - self._began_s, 1e-9), outcomes, client, numbers)

    async def _send_all(self) -> float:
        """Send all requests; return the time at which the last answer ended or the time was over."""
        watcher, duration_s = asyncio.create_task(self._watch()), self._load.duration_s
        async with open_session(self._target.verify_tls) as session:
            self._began_s = cut_s = time.monotonic()  # only now: opening the session takes time
            self._until_s = self._began_s + (float("inf") if duration_s is None else duration_s)
            senders = self._senders(session)
            if duration_s is not None:
                await _sleep_until(self._until_s)
                cut_s = time.monotonic()
                for sender in senders:
                    sender.cancel()
            results = await asyncio.gather(*senders, return_exceptions=True)
        watcher.cancel()
        for _, outcome in self._sent:
            if outcome.ended_s is None:
                outcome.ended_s = cut_s
                outcome.cut_s = None if outcome.error else cut_s  # with an error, it had failed before
            self._target.settle(outcome)
        for error in (result for result in results if isinstance(result, Exception)):
            raise error
        ends = [outcome.ended_s or cut_s for _, outcome in self._sent]
        return cut_s if duration_s is not None else max([cut_s, *ends])

    async def _watch(self) -> None:
        """Record the lateness of the event loop, which is also the delay with which it sees answers."""
        while True:
            slept_s = time.monotonic()
            await asyncio.sleep(LOOK_S)
            self._late_s.append(max(0.0, time.monotonic() - slept_s - LOOK_S))

    def _senders(self, session: aiohttp.ClientSession) -> list[asyncio.Task[None]]:
        """Start the senders: one for each due request, or one for each of the `concurrency` users."""
        load = self._load
        if load.in_turn:
            return [asyncio.create_task(self._user(session)) for _ in range(load.concurrency or 0)]
        due_s = [0.0] * (load.count or len(load.requests)) if load.due_s is None else load.due_s
        if load.concurrency is not None:
            self._limit = asyncio.Semaphore(load.concurrency)
        # paired here because tasks with nearly equal due times may wake up in any order
        pairs = zip(due_s, self._order, strict=False)
        return [asyncio.create_task(self._at(self._began_s + due, number, session)) for due, number in pairs]

    async def _user(self, session: aiohttp.ClientSession) -> None:
        """Send one request after the other, as a user who waits for each answer."""
        for number in self._order:
            if time.monotonic() >= self._until_s:
                return
            outcome = await self._send(time.monotonic(), number, session)
            if outcome.error is not None:
                await asyncio.sleep(FAILED_PAUSE_S)

    async def _at(self, due_s: float, number: tuple[int, int], session: aiohttp.ClientSession) -> None:
        await _sleep_until(due_s)
        await self._send(due_s, number, session)

    async def _send(self, due_s: float, number: tuple[int, int], session: aiohttp.ClientSession) -> RequestOutcome:
        """Send the request with this `number`, which is due now, as soon as the limit allows."""
        outcome, name = RequestOutcome(due_s=due_s), f"{self._name}-{len(self._sent)}"
        headers = {"Content-Type": "application/json", **self._target.headers, "X-Request-Id": name}
        self._sent.append((number, outcome))
        async with self._limit:
            if time.monotonic() < self._until_s:
                question, timeout_s = self._questions[number[0]], self._load.request_timeout_s
                await send(session, self._target.asked_at, headers, question, outcome, timeout_s)
        return outcome


async def _sleep_until(moment_s: float) -> None:
    await asyncio.sleep(max(0.0, moment_s - time.monotonic()))
