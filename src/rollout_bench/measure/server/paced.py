"""Sends requests at given times, or each when an earlier request ends; for a time, or a number of requests.

When the time is over, running requests are cut.
"""

import asyncio
import contextlib
import gc
import itertools
import resource
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import aiohttp
import numpy as np

from rollout_bench.contracts.record import ClientUse
from rollout_bench.measure.server.conversations import Conversation, question_of
from rollout_bench.measure.server.stream import (
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
    return [
        question_of(prompt, request.output_tokens, target, goes_on=bool(request.further))
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


class Look(NamedTuple):
    """A look at the event loop: when it came, in seconds of the monotonic clock, how late, and how long we ran."""

    woke_s: float
    late_s: float
    ran_s: float


LATE_S = 0.001
"""Delay of the event loop from which its cause is looked for, in seconds."""


def seen_late(looks: Sequence[Look], outcomes: Sequence[RequestOutcome]) -> dict[str, float]:
    """Return the fields of `ClientUse` on how late the answers were seen, at most, and why.

    A piece that came while the loop was late, or before the next look, is late by that delay at most.
    """
    late = [look for look in looks if look.late_s > LATE_S]
    late_s = sum(look.late_s for look in late)
    found = {"ran_late_share": min(1.0, sum(look.ran_s for look in late) / late_s)} if late else {}
    answered = [np.array(each.pieces_s) for each in outcomes if each.pieces_s and not each.error]
    if not looks or not answered:
        return found
    woke_s, delays_s = np.array([(look.woke_s, look.late_s) for look in looks]).T

    def delay_s(seen_s: np.ndarray) -> np.ndarray:
        # between two looks, the earlier one was late up to LOOK_S before, and the later one from its due time on
        after = np.searchsorted(woke_s, seen_s)
        next_one, last = np.minimum(after, len(woke_s) - 1), np.maximum(after - 1, 0)
        is_due = (after < len(woke_s)) & (seen_s >= woke_s[next_one] - delays_s[next_one])
        return np.where(is_due, delays_s[next_one], np.where(after > 0, delays_s[last], 0.0))

    first_s = delay_s(np.array([pieces[0] for pieces in answered]))
    every_s = delay_s(np.concatenate(answered))
    sent_s = [each.sent_s for each in outcomes if each.pieces_s and not each.error]
    for name, percentile in (("median", 50), ("p99", 99)):
        # lower: a single late answer among fewer than a hundred is not one in a hundred
        seen = [np.percentile(delays, percentile, method="lower") for delays in (first_s, every_s)]
        found[f"seen_late_{name}_s"] = float(max(seen))
        if None not in sent_s:
            ttft_s = np.array([pieces[0] for pieces in answered]) - np.array(sent_s, dtype=float)
            least_s = np.percentile(np.maximum(ttft_s - first_s, 0.0), percentile)
            found[f"ttft_added_{name}_s"] = float(np.percentile(ttft_s, percentile) - least_s)
    return found


@dataclass
class _Sent:
    """A request that is due: its name, index and repetition, its turn if it is one of a conversation, its outcome."""

    name: str
    number: tuple[int, int]
    turn: Request
    outcome: RequestOutcome


class _Generator:
    def __init__(self, load: Load, target: Target) -> None:
        self._load = load
        self._target = target
        self._questions = prepared_requests(load.requests, load.prompts, target)
        self._order = load.order()
        self._sent: list[_Sent] = []
        self._looks: list[Look] = []
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
        client = ClientUse.of(cpu_share, [look.late_s for look in self._looks], LOOK_S)
        client = client.model_copy(update=seen_late(self._looks, [sent.outcome for sent in self._sent]))
        numbers, outcomes = [sent.number for sent in self._sent], [sent.outcome for sent in self._sent]
        turns = [sent.turn for sent in self._sent] if self._load.said else []
        return LoadPass(self._began_s, max(ended_s - self._began_s, 1e-9), outcomes, client, numbers, turns)

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
        for outcome in (sent.outcome for sent in self._sent):
            if outcome.ended_s is None:
                outcome.ended_s = cut_s
                outcome.cut_s = None if outcome.error else cut_s  # with an error, it had failed before
            self._target.settle(outcome)
        for error in (result for result in results if isinstance(result, Exception)):
            raise error
        ends = [sent.outcome.ended_s or cut_s for sent in self._sent]
        return cut_s if duration_s is not None else max([cut_s, *ends])

    async def _watch(self) -> None:
        """Record the lateness of the event loop, which is also the delay with which it sees answers."""
        while True:
            slept_s, ran_s = time.monotonic(), time.process_time()
            await asyncio.sleep(LOOK_S)
            woke_s = time.monotonic()
            self._looks.append(Look(woke_s, max(0.0, woke_s - slept_s - LOOK_S), time.process_time() - ran_s))

    def _senders(self, session: aiohttp.ClientSession) -> list[asyncio.Task[None]]:
        """Start the senders: one for each due request, or one for each of the `concurrency` users."""
        load = self._load
        if load.rotating:
            return self._rotating(session)
        if load.in_turn:
            return [asyncio.create_task(self._user(session)) for _ in range(load.concurrency or 0)]
        due_s = [0.0] * (load.count or len(load.requests)) if load.due_s is None else load.due_s
        if load.concurrency is not None:
            self._limit = asyncio.Semaphore(load.concurrency)
        # paired here because tasks with nearly equal due times may wake up in any order
        pairs = zip(due_s, self._order, strict=False)
        return [asyncio.create_task(self._at(self._began_s + due, number, session)) for due, number in pairs]

    def _conversation(self, index: int) -> Conversation:
        load = self._load
        said = load.said[index] if load.said else ()
        return Conversation(load.requests[index], load.prompts[index], self._questions[index], said, self._target)

    async def _user(self, session: aiohttp.ClientSession) -> None:
        """Hold one conversation after the other, as a user who waits for each answer."""
        for number in self._order:
            if time.monotonic() >= self._until_s:
                return
            outcome = await self._converse(time.monotonic(), number, session)
            if outcome.error is not None:
                await asyncio.sleep(FAILED_PAUSE_S)

    async def _at(self, due_s: float, number: tuple[int, int], session: aiohttp.ClientSession) -> None:
        await _sleep_until(due_s)
        await self._converse(due_s, number, session)

    async def _converse(self, due_s: float, number: tuple[int, int], session: aiohttp.ClientSession) -> RequestOutcome:
        """Send the request with this `number`, which is due now, as soon as the limit allows; then its further turns.

        A conversation ends with its last turn, with one that fails, or with the time. Return the last outcome.
        """
        talk = self._conversation(number[0])
        sent = self._due(due_s, number, talk.turn)
        async with self._limit:
            await self._send(sent, talk, session)
            while not talk.is_over:
                due_s = max(talk.ready_s, time.monotonic())
                await _sleep_until(due_s)
                if time.monotonic() >= self._until_s:
                    break
                sent = self._due(due_s, number, talk.turn)
                await self._send(sent, talk, session)
        return sent.outcome

    def _rotating(self, session: aiohttp.ClientSession) -> list[asyncio.Task[None]]:
        """Start the senders of open conversations, whose next turns are due one after the other."""
        load, every = self._load, itertools.count()
        talks = [self._conversation(index) for index in range(len(load.requests))]
        if load.due_s is None:
            places = every if load.count is None else iter(range(load.count))
            users = load.concurrency or len(talks)
            return [asyncio.create_task(self._rotating_user(places, talks, session)) for _ in range(users)]
        if load.concurrency is not None:
            self._limit = asyncio.Semaphore(load.concurrency)
        due_s = [self._began_s + due for due in load.due_s]
        return [asyncio.create_task(self._rotate_at(due, place, talks, session)) for place, due in enumerate(due_s)]

    async def _rotating_user(
        self, places: Iterator[int], talks: Sequence[Conversation], session: aiohttp.ClientSession
    ) -> None:
        for place in places:
            if time.monotonic() >= self._until_s:
                return
            outcome = await self._rotate(time.monotonic(), place, talks, session)
            if outcome.error is not None:
                await asyncio.sleep(FAILED_PAUSE_S)

    async def _rotate_at(
        self, due_s: float, place: int, talks: Sequence[Conversation], session: aiohttp.ClientSession
    ) -> None:
        await _sleep_until(due_s)
        await self._rotate(due_s, place, talks, session)

    async def _rotate(
        self, due_s: float, place: int, talks: Sequence[Conversation], session: aiohttp.ClientSession
    ) -> RequestOutcome:
        """Send the next turn of a conversation, which begins again after its end.

        The turn waits for the one before and for what its user thinks, as in inference-perf, where it counts among
        those at once meanwhile. Return its outcome.
        """
        index = place % len(talks)
        talk = talks[index]
        sent = self._due(due_s, (index, talk.round), talk.turn)
        async with self._limit, talk.lock:
            if talk.is_over:
                talk.begin()
            sent.number, sent.turn = (index, talk.round), talk.turn
            await self._send(sent, talk, session)
            await _sleep_until(talk.ready_s)
        return sent.outcome

    def _due(self, due_s: float, number: tuple[int, int], turn: Request) -> _Sent:
        """Count a request that is due."""
        sent = _Sent(f"{self._name}-{len(self._sent)}", number, turn, RequestOutcome(due_s=due_s))
        self._sent.append(sent)
        return sent

    async def _send(self, sent: _Sent, talk: Conversation, session: aiohttp.ClientSession) -> None:
        """Send the next turn, unless the time is over, and let the conversation take the answer."""
        if time.monotonic() < self._until_s:
            headers = {"Content-Type": "application/json", **self._target.headers, "X-Request-Id": sent.name}
            timeout_s, asked_at = self._load.request_timeout_s, self._target.asked_at
            await send(session, asked_at, headers, talk.question, sent.outcome, timeout_s)
        talk.take(sent.outcome)


async def _sleep_until(moment_s: float) -> None:
    await asyncio.sleep(max(0.0, moment_s - time.monotonic()))
