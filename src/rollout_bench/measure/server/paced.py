"""Requests paced here: at given times, or each as an earlier one ends; for a time, or a number of them.

What is asked for is gone through in order, and begun again after its end. At the end of a time requests that are under
way are cut.
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
"""How often the event loop is asked whether it is late."""

FAILED_PAUSE_S = 0.05
"""So long a user waits whose request failed: a server that refuses all at once would else be asked without end."""


def questions(requests: Sequence[Request], prompts: Sequence[list[int] | str], target: Target) -> list[Question]:
    """Return what is sent for each request, made before the pass so that making it costs nothing in it."""
    return [
        _question_of(prompt, request.output_tokens, target) for request, prompt in zip(requests, prompts, strict=True)
    ]


def _question_of(prompt: Prompt, output_tokens: int, target: Target) -> Question:
    """Return what is sent to have `prompt` answered with so many tokens."""
    how = {"stream": True, "stream_options": {"include_usage": True}}
    parts = 1 if isinstance(prompt, str) else len(prompt)
    added = TEMPLATE_TOKENS * parts if target.chat else 0
    return Question(json.dumps({**target.asking(prompt, output_tokens), **how}).encode(), output_tokens, added)


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Hold back the garbage collector: over thousands of open answers a collection takes longer than a token."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def _watch(late: list[float]) -> None:
    """Note by how much the event loop is late each time: so late may any answer be seen, too."""
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            slept = time.monotonic()
            await asyncio.sleep(LOOK_S)
            late.append(max(0.0, time.monotonic() - slept - LOOK_S))


def _open_files() -> None:
    """Allow as many open files as allowed: each request is one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@dataclass(frozen=True)
class LoadEnd:
    """When sending ends, and waiting for an answer.

    Attributes:
        duration_s: so long after the beginning, and what is under way then is cut; None: only when all are sent.
        requests: how many are sent, where that says no list of when they are due; None: any number.
    """

    duration_s: float | None = None
    requests: int | None = None


@dataclass(frozen=True)
class Part:
    """What is sent in a pass.

    Attributes:
        contents: what is asked for, in order.
        due_s: when each is to be sent, in seconds after the beginning, rising; None: as soon as an earlier one ends.
        concurrency: how many may be under way at once; None: any number.
        target: where they go.
        ending: when sending ends.
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
    """Make what is needed to send `requests`; what is returned sends them.

    Args:
        requests: what is asked for, again from the first after the last.
        prompts: the prompt of each, as token ids or text.
        due_s: when to send one, in seconds after the beginning, rising; None: as soon as `concurrency` lets it.
        concurrency: how many may be under way at once; None: any number.
        target: where they go.
        ending: when sending ends.
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
    """Sends a part."""

    def __init__(self, part: Part) -> None:
        self.sent: list[tuple[int, int]] = []
        """For each outcome, which of the contents it is of, and how often that had been sent before."""
        self.outcomes: list[RequestOutcome] = []
        """In the order in which requests were let go."""
        self.began_s = 0.0
        """When it began, on the monotonic clock."""
        self.ended_s = 0.0
        """When the last answer had ended, or the time was over, on the monotonic clock."""
        self.late_s: list[float] = []
        """How late the event loop was, each time it was asked."""
        self._part = part
        self._url = part.target.asked_at
        self._headers = {"Content-Type": "application/json", **part.target.headers}
        self._order: Iterator[tuple[int, int]] = (
            divmod(number, len(part.contents))[::-1] for number in itertools.count()
        )
        self._over = False
        self._name = secrets.token_hex(4)  # nobody else's requests at that server have such ids

    async def run(self) -> None:
        """Send it once; the public attributes say what came of it."""
        watcher = asyncio.create_task(_watch(self.late_s))
        try:
            async with open_session(self._part.target.verify_tls) as session:
                # not before: what came until now took a while
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
                if outcome.error is None:  # else it had failed before, and its answer had not ended
                    outcome.cut_s = cut_s
            part.target.settle(outcome)
        ends = [outcome.ended_s for outcome in self.outcomes if outcome.ended_s is not None]
        self.ended_s = cut_s if part.ending.duration_s else max([cut_s, *ends])
        for sender in senders:
            if not sender.cancelled() and (error := sender.exception()) is not None:
                raise error

    def _senders(self, session: aiohttp.ClientSession) -> list[asyncio.Task[None]]:
        """Begin what sends: somebody for each request that is due at a time, else for each that may be under way."""
        part = self._part
        if part.due_s is None:
            assert part.concurrency is not None, "what is not due at a time is sent as another ends"
            return [asyncio.create_task(self._users(session)) for _ in range(part.concurrency)]
        limit = None if part.concurrency is None else asyncio.Semaphore(part.concurrency)
        # in pairs from here on: of requests that are due at nearly the same time either may wake up first
        pairs = zip(part.due_s, self._order, strict=False)
        return [asyncio.create_task(self._at(due_s, number, session, limit)) for due_s, number in pairs]

    def _left_s(self, after_s: float) -> float:
        """Return seconds until `after_s` after the beginning; 0 once it is past."""
        return max(0.0, self.began_s + after_s - time.monotonic())

    def _goes_on(self) -> bool:
        ending, sent = self._part.ending, len(self.sent)
        in_time = ending.duration_s is None or (not self._over and self._left_s(ending.duration_s) > 0)
        return in_time and (ending.requests is None or sent < ending.requests)

    async def _users(self, session: aiohttp.ClientSession) -> None:
        """Send one request after the other, as somebody does who waits for each answer."""
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
        """Return the place of what is due now, the `number` of the contents, among the outcomes."""
        self.sent.append(number)
        self.outcomes.append(RequestOutcome(due_s=due_s))
        return len(self.outcomes) - 1

    async def _send(self, place: int, session: aiohttp.ClientSession, question: Question) -> None:
        outcome = self.outcomes[place]
        headers = {**self._headers, "X-Request-Id": f"{self._name}-{place}"}
        await send(session, self._url, headers, question, outcome)
