"""Requests sent for a time, paced here: at given times, or each as an earlier one ends.

What is asked for is gone through in order, and begun again after its end. At the end of the time requests that are
under way are cut, or waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import aiohttp

from rollout_bench.contracts.record import ClientUse
from rollout_bench.measure.server.stream import LoadPass, Question, RequestOutcome, Target, open_session, send
from rollout_bench.measure.server.vllm_bench import LOOK_S, no_collection, open_files, questions, watch
from rollout_bench.workloads.requests import Request

FAILED_PAUSE_S = 0.05
"""So long a user waits whose request failed: a server that refuses all at once would else be asked without end."""


@dataclass(frozen=True)
class Part:
    """What one process sends.

    Attributes:
        contents: what is asked for, in order.
        due_s: when each is to be sent, in seconds after the beginning, rising; None: as soon as an earlier one ends.
        concurrency: how many may be under way at once; None: any number.
        target: where they go.
        duration_s: when sending ends, in seconds after the beginning.
        wait: whether requests that are under way then are waited for; else they are cut.
    """

    contents: list[Question]
    due_s: list[float] | None
    concurrency: int | None
    target: Target
    duration_s: float
    wait: bool


@dataclass
class SentPart:
    """What came of a part.

    Attributes:
        sent: for each outcome, which of the contents it is of, and how often that had been sent before.
        outcomes: in the order in which requests were let go.
        ended_s: when the last answer had ended, or the time was over, on the monotonic clock.
        late_s: how late the event loop was, each time it was asked.
    """

    sent: list[tuple[int, int]]
    outcomes: list[RequestOutcome]
    ended_s: float
    late_s: list[float]


def prepare(
    requests: Sequence[Request],
    prompts: Sequence[list[int] | str],
    due_s: Sequence[float] | None,
    concurrency: int | None,
    target: Target,
    duration_s: float,
    wait: bool,
) -> Callable[[], LoadPass]:
    """Make what is needed to send `requests` for a time; what is returned sends them.

    Args:
        requests: what is asked for, again from the first after the last.
        prompts: the prompt of each, as token ids or text.
        due_s: when to send one, in seconds after the beginning, rising; None: as soon as `concurrency` lets it.
        concurrency: how many may be under way at once; None: any number.
        target: where they go.
        duration_s: when sending ends, in seconds after the beginning.
        wait: whether requests that are under way then are waited for; else they are cut.
    """
    times = None if due_s is None else list(due_s)
    part = Part(questions(requests, prompts, target), times, concurrency, target, duration_s, wait)

    def run() -> LoadPass:
        before, cpu_before = time.monotonic(), time.process_time()
        with no_collection():
            done = asyncio.run(_Sender(part, before).run())
        cpu_s, all_s = time.process_time() - cpu_before, time.monotonic() - before
        client = ClientUse.of(cpu_s / all_s, done.late_s, LOOK_S)
        return LoadPass(before, max(done.ended_s - before, 1e-9), done.outcomes, client, done.sent)

    open_files()
    return run


class _Sender:
    """Sends a part, from `began_s` of the monotonic clock on."""

    def __init__(self, part: Part, began_s: float) -> None:
        self._part = part
        self._began_s = began_s
        self._url = f"{part.target.url}/completions"
        self._headers = {"Content-Type": "application/json", **part.target.headers}
        self._order: Iterator[tuple[int, int]] = (
            (number, turn) for turn in itertools.count() for number in range(len(part.contents))
        )
        self._done = SentPart([], [], began_s, [])
        self._over = False
        self._name = secrets.token_hex(4)  # nobody else's requests at that server have such ids

    async def run(self) -> SentPart:
        """Return what came of it."""
        watcher = asyncio.create_task(watch(self._done.late_s))
        try:
            async with open_session(self._part.target.verify_tls) as session:
                await self._send_all(session)
        finally:
            watcher.cancel()
        return self._done

    async def _send_all(self, session: aiohttp.ClientSession) -> None:
        part = self._part
        if part.due_s is None:
            assert part.concurrency is not None, "what is not due at a time is sent as another ends"
            senders = [asyncio.create_task(self._users(session)) for _ in range(part.concurrency)]
        else:
            limit = None if part.concurrency is None else asyncio.Semaphore(part.concurrency)
            senders = [asyncio.create_task(self._at(due_s, session, limit)) for due_s in part.due_s]
        await asyncio.sleep(self._left_s())
        self._over, cut_s = True, time.monotonic()
        if not part.wait:
            for sender in senders:
                sender.cancel()
        await asyncio.gather(*senders, return_exceptions=True)
        for outcome in self._done.outcomes:
            if outcome.ended_s is None:
                outcome.cut_s = outcome.ended_s = cut_s
        ends = [outcome.ended_s for outcome in self._done.outcomes if outcome.ended_s is not None]
        self._done.ended_s = max(cut_s, *ends) if part.wait else cut_s
        for sender in senders:
            if not sender.cancelled() and (error := sender.exception()) is not None:
                raise error

    def _left_s(self, after_s: float | None = None) -> float:
        """Return seconds until the end, or until `after_s` after the beginning; 0 once it is past."""
        moment = self._part.duration_s if after_s is None else after_s
        return max(0.0, self._began_s + moment - time.monotonic())

    async def _users(self, session: aiohttp.ClientSession) -> None:
        """Send one request after the other, as somebody does who waits for each answer."""
        while not self._over and self._left_s() > 0:
            place = self._place(time.monotonic())
            await self._send(place, session)
            if self._done.outcomes[place].error is not None:
                await asyncio.sleep(FAILED_PAUSE_S)

    async def _at(self, due_s: float, session: aiohttp.ClientSession, limit: asyncio.Semaphore | None) -> None:
        await asyncio.sleep(self._left_s(due_s))
        place = self._place(self._began_s + due_s)
        async with limit or contextlib.nullcontext():
            if not self._over:
                await self._send(place, session)

    def _place(self, due_s: float) -> int:
        """Return the place of what is due now among the outcomes."""
        self._done.sent.append(next(self._order))
        self._done.outcomes.append(RequestOutcome(due_s=due_s, streamed=self._part.target.stream))
        return len(self._done.outcomes) - 1

    async def _send(self, place: int, session: aiohttp.ClientSession) -> None:
        target, outcome = self._part.target, self._done.outcomes[place]
        question = self._part.contents[self._done.sent[place][0]]
        headers = {**self._headers, "X-Request-Id": f"{self._name}-{place}"}
        await send(session, self._url, headers, question, target.stream, outcome)
        target.settle(outcome)
