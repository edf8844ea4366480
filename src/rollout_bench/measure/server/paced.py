"""Requests paced here: at given times, or each as an earlier one ends; for a time, or a number of them.

What is asked for is gone through in order, and begun again after its end. At the end of a time requests that are under
way are cut, or waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import json
import multiprocessing.connection
import pickle
import resource
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import aiohttp

from rollout_bench.contracts.record import ClientUse
from rollout_bench.core.processes import die_with_parent
from rollout_bench.measure.server.stream import (
    TEMPLATE_TOKENS,
    LoadPass,
    Prompt,
    Question,
    RequestOutcome,
    ServingFailed,
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
    how: dict[str, Any] = {"stream": target.stream}
    if target.stream:
        how["stream_options"] = {"include_usage": True}
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
        duration_s: so long after the beginning; None: only when all are sent.
        wait: whether requests that are under way then are waited for; else they are cut.
        requests: how many are sent, where that says no list of when they are due; None: any number.
        timeout_s: so long a request may take; None: any time.
    """

    duration_s: float | None = None
    wait: bool = False
    requests: int | None = None
    timeout_s: float | None = None


@dataclass(frozen=True)
class Part:
    """What one process sends.

    Attributes:
        contents: what is asked for, in order.
        due_s: when each is to be sent, in seconds after the beginning, rising; None: as soon as an earlier one ends.
        concurrency: how many may be under way at once; None: any number.
        target: where they go.
        ending: when sending ends.
        first: the number of what it sends first; after the last of the contents they begin again.
        step: how much further the next one is.
    """

    contents: list[Question]
    due_s: list[float] | None
    concurrency: int | None
    target: Target
    ending: LoadEnd
    first: int = 0
    step: int = 1

    def shares(self, count: int) -> list[Part]:
        """Return it shared out among `count` processes: each sends every `count`-th of what is due.

        Together they send what one would: no prompt is sent by two, and times are those of one schedule.
        """
        most, requests = self.concurrency, self.ending.requests
        return [
            replace(
                self,
                due_s=None if self.due_s is None else self.due_s[share::count],
                concurrency=None if most is None else len(range(share, most, count)),
                ending=replace(self.ending, requests=None if requests is None else len(range(share, requests, count))),
                first=share,
                step=count,
            )
            for share in range(count)
        ]


@dataclass
class SentPart:
    """What came of a part.

    Attributes:
        sent: for each outcome, which of the contents it is of, and how often that had been sent before.
        outcomes: in the order in which requests were let go.
        began_s: when it began, on the monotonic clock.
        ended_s: when the last answer had ended, or the time was over, on the monotonic clock.
        late_s: how late the event loop was, each time it was asked.
    """

    sent: list[tuple[int, int]]
    outcomes: list[RequestOutcome]
    began_s: float
    ended_s: float
    late_s: list[float]


def prepare(
    requests: Sequence[Request],
    prompts: Sequence[list[int] | str],
    due_s: Sequence[float] | None,
    concurrency: int | None,
    target: Target,
    ending: LoadEnd,
    generators: int = 1,
) -> Callable[[], LoadPass]:
    """Make what is needed to send `requests`; what is returned sends them.

    Args:
        requests: what is asked for, again from the first after the last.
        prompts: the prompt of each, as token ids or text.
        due_s: when to send one, in seconds after the beginning, rising; None: as soon as `concurrency` lets it.
        concurrency: how many may be under way at once; None: any number.
        target: where they go.
        ending: when sending ends.
        generators: processes that send.
    """
    times = None if due_s is None else list(due_s)
    part = Part(questions(requests, prompts, target), times, concurrency, target, ending)

    if generators > 1:
        return _by_several(part.shares(generators))

    def run() -> LoadPass:
        done, client = send_part(part)
        return LoadPass(done.began_s, max(done.ended_s - done.began_s, 1e-9), done.outcomes, client, done.sent)

    _open_files()
    return run


def send_part(part: Part, began_s: float | None = None) -> tuple[SentPart, ClientUse]:
    """Send a part, from `began_s` of the monotonic clock on; return what came of it and what that cost."""
    before, cpu_before = time.monotonic(), time.process_time()
    with _no_collection():
        done = asyncio.run(PartSender(part, began_s).run())
    cpu_s, all_s = time.process_time() - cpu_before, time.monotonic() - before
    return done, ClientUse.of(cpu_s / all_s, done.late_s, LOOK_S)


LEAD_S = 0.1
"""From the word to begin until they do: each process has it by then."""


def _by_several(parts: Sequence[Part]) -> Callable[[], LoadPass]:
    """Start a process for each of `parts`; what is returned has them send at the same moment, and puts together."""
    # The part goes through a pipe: it holds headers, a key among them, which are nobody else's business.
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            preexec_fn=lambda: die_with_parent(signal.SIGKILL),
        )
        for _ in parts
    ]
    for process, part in zip(processes, parts, strict=True):
        _write(process, part)
    with _ended_together(processes):
        _each(processes)  # that it is ready

    def run() -> LoadPass:
        """Raise `ServingFailed` where one of them ended; the others are ended, too."""
        began_s = time.monotonic() + LEAD_S
        with _ended_together(processes):
            for process in processes:
                _write(process, began_s)
            found: list[tuple[SentPart, ClientUse]] = _each(processes)
        for process in processes:
            process.communicate()
        rows = [
            (outcome.due_s or 0.0, generator, place)
            for generator, (done, _) in enumerate(found)
            for place, outcome in enumerate(done.outcomes)
        ]
        rows.sort()
        ended_s = max(done.ended_s for done, _ in found)
        return LoadPass(
            began_s,
            max(ended_s - began_s, 1e-9),
            [found[generator][0].outcomes[place] for _, generator, place in rows],
            _worst([client for _, client in found]),
            [found[generator][0].sent[place] for _, generator, place in rows],
            [generator for _, generator, _ in rows],
        )

    return run


def _worst(clients: Sequence[ClientUse]) -> ClientUse:
    dumped = [client.model_dump(exclude_none=True) for client in clients]
    return ClientUse(**{name: max(each.get(name, 0.0) for each in dumped) for name in dumped[0]})


def _write(process: subprocess.Popen[bytes], content: Any) -> None:
    assert process.stdin is not None, "it was asked for"
    with contextlib.suppress(BrokenPipeError):  # reading tells
        pickle.dump(content, process.stdin)
        process.stdin.flush()


@contextlib.contextmanager
def _ended_together(processes: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    """End all of `processes` where something goes wrong: without one of them the load is another one."""
    try:
        yield
    except BaseException:
        for process in processes:
            process.kill()
        for process in processes:
            process.communicate()
        raise


def _each(processes: Sequence[subprocess.Popen[bytes]]) -> list[Any]:
    """Return what each of `processes` says next.

    The first to say something is heard first: one that ended ends the pass at once, however long others send.
    """
    said: dict[int, Any] = {}
    while len(said) < len(processes):
        waiting = {
            process.stdout.fileno(): number
            for number, process in enumerate(processes)
            if number not in said and process.stdout is not None
        }
        for stream in multiprocessing.connection.wait(list(waiting)):
            number = waiting[stream]  # type: ignore[index]
            said[number] = _read(number, processes)
    return [said[number] for number in range(len(processes))]


def _read(number: int, processes: Sequence[subprocess.Popen[bytes]]) -> Any:
    process = processes[number]
    assert process.stdout is not None, "it was asked for"
    try:
        return pickle.load(process.stdout)
    except (EOFError, pickle.UnpicklingError):
        status = process.wait()
        how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        cause = f"generator {number} of {len(processes)} (from 0; process {process.pid}) {how} before its part was sent"
        fix = "read the log's end: memory may have run out; or set generators: 1"
        raise ServingFailed("load_generator", cause, fix) from None


def main() -> None:
    """Send a part that comes through standard input, once the moment to begin does."""
    told = sys.stdout.buffer
    _open_files()
    part = pickle.load(sys.stdin.buffer)
    pickle.dump("ready", told)
    told.flush()
    pickle.dump(send_part(part, pickle.load(sys.stdin.buffer)), told)
    told.flush()


class PartSender:
    """Sends a part."""

    def __init__(self, part: Part, began_s: float | None = None) -> None:
        self._part = part
        self._begins_s = began_s
        self._began_s = 0.0
        self._url = part.target.asked_at
        self._headers = {"Content-Type": "application/json", **part.target.headers}
        self._order: Iterator[tuple[int, int]] = (
            divmod(number, len(part.contents))[::-1] for number in itertools.count(part.first, part.step)
        )
        self._done = SentPart([], [], 0.0, 0.0, [])
        self._over = False
        self._name = secrets.token_hex(4)  # nobody else's requests at that server have such ids

    async def run(self) -> SentPart:
        """Return what came of it."""
        watcher = asyncio.create_task(_watch(self._done.late_s))
        try:
            async with open_session(self._part.target.verify_tls) as session:
                # not before: what came until now took a while
                self._began_s = self._done.began_s = self._begins_s or time.monotonic()
                await asyncio.sleep(self._left_s(0.0))
                await self._send_all(session)
        finally:
            watcher.cancel()
        return self._done

    async def _send_all(self, session: aiohttp.ClientSession) -> None:
        part, cut_s = self._part, self._began_s
        senders = self._senders(session)
        if part.ending.duration_s is not None:
            await asyncio.sleep(self._left_s(part.ending.duration_s))
            self._over, cut_s = True, time.monotonic()
            if not part.ending.wait:
                for sender in senders:
                    sender.cancel()
        await asyncio.gather(*senders, return_exceptions=True)
        for outcome in self._done.outcomes:
            if outcome.ended_s is None:
                outcome.ended_s = cut_s
                if outcome.error is None:  # else it had failed before, and its answer had not ended
                    outcome.cut_s = cut_s
            part.target.settle(outcome)
        ends = [outcome.ended_s for outcome in self._done.outcomes if outcome.ended_s is not None]
        self._done.ended_s = cut_s if part.ending.duration_s and not part.ending.wait else max([cut_s, *ends])
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
        return max(0.0, self._began_s + after_s - time.monotonic())

    def _goes_on(self) -> bool:
        ending, sent = self._part.ending, len(self._done.sent)
        in_time = ending.duration_s is None or (not self._over and self._left_s(ending.duration_s) > 0)
        return in_time and (ending.requests is None or sent < ending.requests)

    async def _users(self, session: aiohttp.ClientSession) -> None:
        """Send one request after the other, as somebody does who waits for each answer."""
        while self._goes_on():
            place = self._place(time.monotonic(), next(self._order))
            await self._send(place, session, self._part.contents[self._done.sent[place][0]])
            if self._done.outcomes[place].error is not None:
                await asyncio.sleep(FAILED_PAUSE_S)

    async def _at(
        self, due_s: float, number: tuple[int, int], session: aiohttp.ClientSession, limit: asyncio.Semaphore | None
    ) -> None:
        await asyncio.sleep(self._left_s(due_s))
        place = self._place(self._began_s + due_s, number)
        async with limit or contextlib.nullcontext():
            if not self._over or self._part.ending.wait:
                await self._send(place, session, self._part.contents[number[0]])

    def _place(self, due_s: float, number: tuple[int, int]) -> int:
        """Return the place of what is due now, the `number` of the contents, among the outcomes."""
        self._done.sent.append(number)
        self._done.outcomes.append(RequestOutcome(due_s=due_s, streamed=self._part.target.stream))
        return len(self._done.outcomes) - 1

    async def _send(self, place: int, session: aiohttp.ClientSession, question: Question) -> None:
        target, outcome = self._part.target, self._done.outcomes[place]
        headers = {**self._headers, "X-Request-Id": f"{self._name}-{place}"}
        timeout_s = self._part.ending.timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                await send(session, self._url, headers, question, target.stream, outcome)
        except TimeoutError:
            outcome.error, outcome.ended_s = f"timeout: no whole answer within {timeout_s:g} s", time.monotonic()


if __name__ == "__main__":
    from rollout_bench.measure.server import paced  # so that what is sent back has the names of that module

    paced.main()
