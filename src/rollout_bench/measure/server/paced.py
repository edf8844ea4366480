"""Sends requests at given times, or each when an earlier request ends; for a time, or a number of requests.

When the time is over, running requests are cut.
"""

import asyncio
import contextlib
import gc
import resource
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import aiohttp
import msgspec

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
from rollout_bench.workloads.requests import Request, Turn

LOOK_S = 0.01
"""Interval between checks of the event loop's lateness, in seconds."""

FAILED_PAUSE_S = 0.05
"""Pause of a user after a failed request, in seconds, to avoid flooding a server that refuses everything."""


def question_of(prompt: Prompt, output_tokens: int, target: Target, *, goes_on: bool = False) -> Question:
    """Return a request with its body; encoding a long prompt takes a millisecond, so it is done before it is due."""
    how = {"stream": True, "stream_options": {"include_usage": True}}
    body = msgspec.json.encode({**target.asking(prompt, output_tokens), **how})
    return Question(body, output_tokens, TEMPLATE_TOKENS * target.chat, goes_on)


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


class _Generator:
    def __init__(self, load: Load, target: Target) -> None:
        self._load = load
        self._target = target
        self._questions = prepared_requests(load.requests, load.prompts, target)
        self._order = load.order()
        self._sent: list[tuple[tuple[int, int], RequestOutcome]] = []
        self._turns: list[Request] = []
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
        turns = self._turns if self._load.said else []
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
        first, said = self._load.requests[number[0]], self._load.said[number[0]] if self._load.said else ()
        turn, prompt = replace(first, turn=1), self._load.prompts[number[0]]
        name, outcome = self._due(due_s, number, turn)
        async with self._limit:
            await self._send(self._questions[number[0]], name, outcome, session)
            for further, words in zip(first.further, said, strict=True):
                if not self._goes_on(outcome, prompt):
                    break
                prompt = self._target.continued(prompt, outcome, words)
                turn = _next_turn(turn, further, prompt)
                goes_on = turn.turn != len(first.further) + 1
                question = question_of(prompt, turn.output_tokens, self._target, goes_on=goes_on)
                due_s = max((outcome.ended_s or 0.0) + further.tool_s, time.monotonic())
                await _sleep_until(due_s)
                if time.monotonic() >= self._until_s:
                    break
                name, outcome = self._due(due_s, number, turn)
                await self._send(question, name, outcome, session)
        return outcome

    def _goes_on(self, outcome: RequestOutcome, prompt: Prompt) -> bool:
        """Return whether the next turn can repeat an answer; one without all its token ids fails."""
        came, has_ended = len(outcome.token_ids), outcome.error is None and outcome.ended_s is not None
        if has_ended and isinstance(prompt, list) and came != outcome.output_tokens:
            outcome.error = f"{came} token ids came with {outcome.output_tokens} tokens, and the next turn repeats them"
        return outcome.error is None and has_ended

    def _due(self, due_s: float, number: tuple[int, int], turn: Request) -> tuple[str, RequestOutcome]:
        """Count a request that is due; return its name and its outcome."""
        name, outcome = f"{self._name}-{len(self._sent)}", RequestOutcome(due_s=due_s)
        self._sent.append((number, outcome))
        self._turns.append(turn)
        return name, outcome

    async def _send(
        self, question: Question, name: str, outcome: RequestOutcome, session: aiohttp.ClientSession
    ) -> None:
        """Send a request, unless the time is over."""
        headers = {"Content-Type": "application/json", **self._target.headers, "X-Request-Id": name}
        if time.monotonic() < self._until_s:
            timeout_s = self._load.request_timeout_s
            await send(session, self._target.asked_at, headers, question, outcome, timeout_s)


def _next_turn(turn: Request, further: Turn, prompt: Prompt) -> Request:
    """Return the request after `turn`; of a text, only the server knows the tokens."""
    token_ids, number = prompt if isinstance(prompt, list) else turn.prompt_token_ids, (turn.turn or 0) + 1
    return replace(turn, turn=number, prompt_token_ids=token_ids, output_tokens=further.output_tokens, further=())


async def _sleep_until(moment_s: float) -> None:
    await asyncio.sleep(max(0.0, moment_s - time.monotonic()))
