"""Sends requests at given times, or each when an earlier request ends; for a time, or a number of requests.

The list of requests is sent in order and repeated after its end. When the time is over, running requests are cut.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import json
import resource
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import aiohttp

from rollout_bench.contracts.record import ClientUse
from rollout_bench.measure.server.stream import (
    TEMPLATE_TOKENS,
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


def questions(requests: Sequence[Request], prompts: Sequence[list[int] | str], target: Target) -> list[Question]:
    """Return the body of each request, prepared before the pass so that it costs no measured time."""
    return [
        _question_of(prompt, request.output_tokens, target) for request, prompt in zip(requests, prompts, strict=True)
    ]


def _question_of(prompt: Prompt, output_tokens: int, target: Target) -> Question:
    """Return the request that asks for `output_tokens` tokens after `prompt`."""
    how = {"stream": True, "stream_options": {"include_usage": True}}
    parts = 1 if isinstance(prompt, str) else len(prompt)
    added = TEMPLATE_TOKENS * parts if target.chat else 0
    return Question(json.dumps({**target.asking(prompt, output_tokens), **how}).encode(), output_tokens, added)


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Disable the garbage collector: with thousands of open answers, a collection takes longer than a token."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def _watch(late: list[float]) -> None:
    """Record the lateness of the event loop, which is also the delay with which it sees answers."""
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            slept = time.monotonic()
            await asyncio.sleep(LOOK_S)
            late.append(max(0.0, time.monotonic() - slept - LOOK_S))


def _open_files() -> None:
    """Raise this process's limit of open files to its maximum, because each request is an open file."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@dataclass(frozen=True)
class LoadEnd:
    """Conditions that end a pass.

    Attributes:
        duration_s: time after which sending stops and running requests are cut; None: send all requests.
        requests: number of requests to send if `due_s` does not list them; None: unlimited.
    """

    duration_s: float | None = None
    requests: int | None = None


@dataclass(frozen=True)
class Part:
    """The requests of a pass.

    Attributes:
        contents: the requests, in order.
        due_s: time at which each request is due, in seconds after the start, rising; None: when an earlier request
            ends.
        concurrency: largest number of simultaneous requests; None: unlimited.
        target: the server.
        ending: the conditions that end the pass.
    """

    contents: list[Question]
    due_s: list[float] | None
    concurrency: int | None
    target: Target
    ending: LoadEnd


def prepare(
    requests: Sequence[Request],
    prompts: Sequence[list[int] | str],
    due_s: Sequence[float] | None,
    concurrency: int | None,
    target: Target,
    ending: LoadEnd,
) -> Callable[[], LoadPass]:
    """Prepare sending `requests`; return a function that sends them.

    Args:
        requests: the requests, repeated from the first after the last.
        prompts: the prompt of each request, as token ids or text.
        due_s: time at which each request is due, in seconds after the start, rising; None: as soon as `concurrency`
            allows.
        concurrency: largest number of simultaneous requests; None: unlimited.
        target: the server.
        ending: the conditions that end the pass.
    """
    times = None if due_s is None else list(due_s)
    part = Part(questions(requests, prompts, target), times, concurrency, target, ending)

    def run() -> LoadPass:
        before, cpu_before, sender = time.monotonic(), time.process_time(), PartSender(part)
        with _no_collection():
            asyncio.run(sender.run())
        cpu_s, all_s = time.process_time() - cpu_before, time.monotonic() - before
        client = ClientUse.of(cpu_s / all_s, sender.late_s, LOOK_S)
        return LoadPass(
            sender.began_s, max(sender.ended_s - sender.began_s, 1e-9), sender.outcomes, client, sender.sent
        )

    _open_files()
    return run


class PartSender:
    """Sends the requests of a `Part`."""

    def __init__(self, part: Part) -> None:
        self.sent: list[tuple[int, int]] = []
        """For each outcome, the index of its content and how often that content was sent before."""
        self.outcomes: list[RequestOutcome] = []
        """Outcomes, in the order in which requests became due."""
        self.began_s = 0.0
        """Start time, on the monotonic clock."""
        self.ended_s = 0.0
        """Time at which the last answer ended or the time was over, on the monotonic clock."""
        self.late_s: list[float] = []
        """Lateness of the event loop at each check, in seconds."""
        self._part = part
        self._url = part.target.asked_at
        self._headers = {"Content-Type": "application/json", **part.target.headers}
        self._order: Iterator[tuple[int, int]] = (
            divmod(number, len(part.contents))[::-1] for number in itertools.count()
        )
        self._over = False
        self._name = secrets.token_hex(4)  # unique among the requests at that server

    async def run(self) -> None:
        """Send the part once; the public attributes hold the results."""
        watcher = asyncio.create_task(_watch(self.late_s))
        try:
            async with open_session(self._part.target.verify_tls) as session:
                # only now: opening the session takes time
                self.began_s = time.monotonic()
                await self._send_all(session)
        finally:
            watcher.cancel()

    async def _send_all(self, session: aiohttp.ClientSession) -> None:
        part, cut_s = self._part, self.began_s
        senders = self._senders(session)
        if part.ending.duration_s is not None:
            await asyncio.sleep(self._left_s(part.ending.duration_s))
            self._over, cut_s = True, time.monotonic()
            for sender in senders:
                sender.cancel()
        await asyncio.gather(*senders, return_exceptions=True)
        for outcome in self.outcomes:
            if outcome.ended_s is None:
                outcome.ended_s = cut_s
                if outcome.error is None:  # with an error, the request had failed before its answer ended
                    outcome.cut_s = cut_s
            part.target.settle(outcome)
        ends = [outcome.ended_s for outcome in self.outcomes if outcome.ended_s is not None]
        self.ended_s = cut_s if part.ending.duration_s else max([cut_s, *ends])
        for sender in senders:
            if not sender.cancelled() and (error := sender.exception()) is not None:
                raise error

    def _senders(self, session: aiohttp.ClientSession) -> list[asyncio.Task[None]]:
        """Start the senders: one for each due request, or one for each of the `concurrency` users."""
        part = self._part
        if part.due_s is None:
            assert part.concurrency is not None, "what is not due at a time is sent as another ends"
            return [asyncio.create_task(self._users(session)) for _ in range(part.concurrency)]
        limit = None if part.concurrency is None else asyncio.Semaphore(part.concurrency)
        # paired here because tasks with nearly equal due times may wake up in any order
        pairs = zip(part.due_s, self._order, strict=False)
        return [asyncio.create_task(self._at(due_s, number, session, limit)) for due_s, number in pairs]

    def _left_s(self, after_s: float) -> float:
        """Return the seconds until `after_s` after the start; 0 if that is past."""
        return max(0.0, self.began_s + after_s - time.monotonic())

    def _goes_on(self) -> bool:
        ending, sent = self._part.ending, len(self.sent)
        in_time = ending.duration_s is None or (not self._over and self._left_s(ending.duration_s) > 0)
        return in_time and (ending.requests is None or sent < ending.requests)

    async def _users(self, session: aiohttp.ClientSession) -> None:
        """Send one request after the other, as a user who waits for each answer."""
        while self._goes_on():
            place = self._place(time.monotonic(), next(self._order))
            await self._send(place, session, self._part.contents[self.sent[place][0]])
            if self.outcomes[place].error is not None:
                await asyncio.sleep(FAILED_PAUSE_S)

    async def _at(
        self, due_s: float, number: tuple[int, int], session: aiohttp.ClientSession, limit: asyncio.Semaphore | None
    ) -> None:
        await asyncio.sleep(self._left_s(due_s))
        place = self._place(self.began_s + due_s, number)
        async with limit or contextlib.nullcontext():
            if not self._over:
                await self._send(place, session, self._part.contents[number[0]])

    def _place(self, due_s: float, number: tuple[int, int]) -> int:
        """Add an outcome for the content `number`, which is due now; return the index of the outcome."""
        self.sent.append(number)
        self.outcomes.append(RequestOutcome(due_s=due_s))
        return len(self.outcomes) - 1

    async def _send(self, place: int, session: aiohttp.ClientSession, question: Question) -> None:
        outcome = self.outcomes[place]
        headers = {**self._headers, "X-Request-Id": f"{self._name}-{place}"}
        await send(session, self._url, headers, question, outcome)
