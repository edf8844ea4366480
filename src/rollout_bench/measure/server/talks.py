"""Conversations: which request is next, and what it asks after all that was said before."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import aiohttp

from rollout_bench.contracts.load import TalkTurns
from rollout_bench.measure.server.paced import FAILED_PAUSE_S, LoadEnd, Part, PartSender, measured
from rollout_bench.measure.server.stream import LoadPass, Prompt, RequestOutcome, Said, Target, answer_of
from rollout_bench.measure.server.vllm_bench import open_files, question_of
from rollout_bench.workloads.requests import Request

LOOK_AGAIN_S = 0.05
"""So often somebody who waits for an answer to a conversation looks whether the load is over."""

AsText = Callable[[Sequence[int]], str]


@dataclass
class Talk:
    """A conversation that goes on.

    Attributes:
        number: which of the first requests it began with, and how often that had begun one before.
        conversation: how many had begun before it.
        first: what it began with.
        begun: the prompt of that, as token ids or text.
        replies: for each answer that came: its token ids and its text, and those of what is asked after it.
        ready_s: when its next request may be sent, on the monotonic clock.
    """

    number: tuple[int, int]
    conversation: int
    first: Request
    begun: list[int] | str
    replies: list[tuple[list[int], str, list[int], str]] = field(default_factory=list)
    ready_s: float = 0.0

    @property
    def output_tokens(self) -> int:
        """How many tokens its next request asks for."""
        further = self.first.further
        if not self.replies or further is None:
            return self.first.output_tokens
        return further.output_tokens[len(self.replies) - 1]

    def within(self, context_tokens: int | None) -> list[tuple[list[int], str, list[int], str]]:
        """Return as many of its last replies as there is room for; what is asked now is always among them."""
        kept = list(self.replies)
        if context_tokens is None or not kept:
            return kept
        own = len(self.first.prompt_token_ids) + self.output_tokens
        while len(kept) > 1 and own + sum(len(answer) + len(new) for answer, _, new, _ in kept) > context_tokens:
            kept.pop(0)
        answer, _, new, asked = kept[0]
        if len(kept) == 1 and own + len(answer) + len(new) > context_tokens:
            kept = [([], "", new, asked)]
        return kept

    def said(self, context_tokens: int | None) -> Said:
        """Return what its next request asks."""
        kept = self.within(context_tokens)
        tokens = len(self.first.prompt_token_ids) + sum(len(answer) + len(new) for answer, _, new, _ in kept)
        known = tokens - len(kept[-1][2]) if kept else 0
        return Said(self.conversation, len(self.replies), tokens, self.output_tokens, known)

    def prompt(self, chat: bool, context_tokens: int | None) -> Prompt:
        """Return that as it is sent: token ids, messages of a `chat`, or text."""
        kept, begun = self.within(context_tokens), self.begun
        if not isinstance(begun, str):
            return [*begun, *(i for answer, _, new, _ in kept for i in (*answer, *new))]
        replies = [(answer, asked) for _, answer, _, asked in kept]
        if not chat:
            return " ".join([begun, *(words for reply in replies for words in reply if words)])
        roles = ("assistant", "user")
        messages = [
            {"role": role, "content": words}
            for reply in replies
            for role, words in zip(roles, reply, strict=True)
            if words
        ]
        return [{"role": "user", "content": begun}, *messages]


@dataclass
class _Lane:
    """A place for one conversation after the other, whose requests are sent in the order in which they were due."""

    numbers: Iterator[int]
    talk: Talk | None = None
    busy: bool = False
    closed: bool = False
    gate: asyncio.Lock = field(default_factory=asyncio.Lock)


class Talks:
    """Says which conversation goes on.

    Args:
        requests: what conversations begin with.
        prompts: the prompt of each, as token ids or text.
        turns: how they go on.
        again: whether they begin again after the last, as a load for a time or a number of requests does.
    """

    def __init__(
        self, requests: Sequence[Request], prompts: Sequence[list[int] | str], turns: TalkTurns, again: bool
    ) -> None:
        self._requests = requests
        self._prompts = prompts
        self._turns = turns
        self._begun = itertools.count()
        self._waiting: list[Talk] = []
        self._under_way = 0
        count, lanes = len(requests), turns.active or 1
        self._numbers = itertools.count() if again else iter(range(count))
        self._lanes = [
            _Lane(itertools.count(lane, lanes) if again else iter(range(lane, count, lanes))) for lane in range(lanes)
        ]
        self._rounds = itertools.cycle(self._lanes)
        self._changed = asyncio.Event()
        self._gate = asyncio.Lock()  # of many that wait the first one looks: they get their turn in order

    async def next(self, goes_on: Callable[[], bool]) -> Talk | None:
        """Wait for a conversation that can go on; None where none will, or where `goes_on` says that all is over."""
        found = await (self._oldest(goes_on) if self._turns.active is None else self._in_rounds(goes_on))
        if found is not None:
            self._under_way += 1
        return found

    def answered(self, talk: Talk, reply: tuple[list[int], str, list[int], str] | None, think_s: float) -> None:
        """Take what is asked after an answer, and after a pause; None ends the conversation."""
        self._under_way -= 1
        lane = next((lane for lane in self._lanes if lane.talk is talk), None)
        if lane is not None:
            lane.busy = False
        if reply is None:
            if lane is not None:
                lane.talk = None
        else:
            talk.replies.append(reply)
            talk.ready_s = time.monotonic() + think_s
            if lane is None:
                self._waiting.append(talk)
                self._waiting.sort(key=lambda one: one.conversation)
        self._change()

    async def rest(self, talk: Talk, goes_on: Callable[[], bool]) -> None:
        """Wait until `talk` may go on, where it keeps its place meanwhile, as it does in rounds."""
        while self._turns.active is not None and goes_on() and (left_s := talk.ready_s - time.monotonic()) > 0:
            await asyncio.sleep(min(left_s, LOOK_AGAIN_S))

    def _change(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _change_comes(self, resting: Iterable[Talk]) -> None:
        """Wait until an answer has come, one that rests may go on, or it is time to look whether all is over."""
        ready_s = min((talk.ready_s for talk in resting), default=math.inf)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, min(LOOK_AGAIN_S, ready_s - time.monotonic()))):
                await self._changed.wait()

    def _begin(self, numbers: Iterator[int]) -> Talk | None:
        place = next(numbers, None)
        if place is None:
            return None
        again, number = divmod(place, len(self._requests))
        return Talk((number, again), next(self._begun), self._requests[number], self._prompts[number])

    async def _oldest(self, goes_on: Callable[[], bool]) -> Talk | None:
        async with self._gate:
            while goes_on():
                now_s = time.monotonic()
                talk = next((one for one in self._waiting if one.ready_s <= now_s), None)
                if talk is not None:
                    self._waiting.remove(talk)
                    return talk
                talk = self._begin(self._numbers)
                if talk is not None:
                    return talk
                if not self._waiting and not self._under_way:
                    return None
                await self._change_comes(self._waiting)
        return None

    async def _in_rounds(self, goes_on: Callable[[], bool]) -> Talk | None:
        while goes_on() and not all(lane.closed for lane in self._lanes):
            lane = next(self._rounds)
            async with lane.gate:
                while goes_on() and not lane.closed:
                    if not lane.busy and (lane.talk is None or lane.talk.ready_s <= time.monotonic()):
                        lane.talk = lane.talk or self._begin(lane.numbers)
                        lane.closed = lane.talk is None
                        lane.busy = not lane.closed
                        if lane.talk is not None:
                            return lane.talk
                    else:
                        await self._change_comes([lane.talk] if lane.talk is not None and not lane.busy else [])
        return None


class TalkSender(PartSender):
    """Sends conversations.

    Args:
        part: how; its contents are not looked at.
        talks: which conversation goes on.
        turns: how they go on.
        text: makes text of token ids; None where they are sent as they are.
    """

    def __init__(self, part: Part, talks: Talks, turns: TalkTurns, text: AsText | None) -> None:
        super().__init__(part)
        self._talks = talks
        self._turns = turns
        self._text = text
        self.said: list[Said] = []

    def _senders(self, session: aiohttp.ClientSession) -> list[asyncio.Task[None]]:
        part = self._part
        if part.due_s is None:
            assert part.concurrency is not None, "what is not due at a time is sent as another ends"
            return [asyncio.create_task(self._users(session)) for _ in range(part.concurrency)]
        limit = None if part.concurrency is None else asyncio.Semaphore(part.concurrency)
        return [asyncio.create_task(self._when_due(due_s, session, limit)) for due_s in part.due_s]

    async def _users(self, session: aiohttp.ClientSession) -> None:
        while (talk := await self._talks.next(self._goes_on)) is not None:
            outcome = await self._ask(talk, time.monotonic(), session)
            if outcome.error is not None:
                await asyncio.sleep(FAILED_PAUSE_S)
            await self._talks.rest(talk, self._goes_on)

    async def _when_due(self, due_s: float, session: aiohttp.ClientSession, limit: asyncio.Semaphore | None) -> None:
        await asyncio.sleep(self._left_s(due_s))
        async with limit or contextlib.nullcontext():
            talk = await self._talks.next(lambda: not self._over or self._part.ending.wait)
            if talk is not None:
                await self._ask(talk, self._began_s + due_s, session)

    async def _ask(self, talk: Talk, due_s: float, session: aiohttp.ClientSession) -> RequestOutcome:
        target, most = self._part.target, self._turns.context_tokens
        said = talk.said(most)
        place = self._place(due_s, talk.number)
        self.said.append(said)
        question = question_of(talk.prompt(target.chat, most), said.output_tokens, target)
        kept: list[bytes] = []
        await self._send(place, session, question, kept)
        outcome, further = self._done.outcomes[place], talk.first.further
        number = len(talk.replies)
        if outcome.error is not None or further is None or number >= len(further):
            self._talks.answered(talk, None, 0.0)
            return outcome
        ids, words = answer_of(kept)
        if ids is None and self._text is None:
            outcome.error = "the answer came without its token ids, which the next request of a conversation needs"
            self._talks.answered(talk, None, 0.0)
            return outcome
        new = further.token_ids(number)
        asked = "" if self._text is None else self._text(new)
        answer = [0] * outcome.output_tokens if ids is None else ids
        self._talks.answered(talk, (answer, words, new, asked), further.think_ms[number] / 1000)
        return outcome


def prepare(
    requests: Sequence[Request],
    prompts: Sequence[list[int] | str],
    turns: TalkTurns,
    text: AsText | None,
    due_s: Sequence[float] | None,
    concurrency: int | None,
    target: Target,
    ending: LoadEnd,
) -> Callable[[], LoadPass]:
    """Make what is needed to send conversations; what is returned sends them.

    Args:
        requests: what they begin with.
        prompts: the prompt of each, as token ids or text.
        turns: how they go on.
        text: makes text of token ids; None where they are sent as they are.
        due_s: when to send a request, in seconds after the beginning, rising; None: as soon as `concurrency` lets it.
        concurrency: how many requests may be under way at once; None: any number.
        target: where they go.
        ending: when sending ends.
    """
    times = None if due_s is None else list(due_s)
    again = ending.duration_s is not None or ending.requests is not None
    part = Part([], times, concurrency, target, ending)

    def run() -> LoadPass:
        sender = TalkSender(part, Talks(requests, prompts, turns, again), turns, text)
        done, client = measured(sender)
        elapsed_s = max(done.ended_s - done.began_s, 1e-9)
        return LoadPass(done.began_s, elapsed_s, done.outcomes, client, done.sent, said=sender.said)

    open_files()
    return run
