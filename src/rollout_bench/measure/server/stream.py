"""One request over HTTP: where it goes, how its answer is taken apart as it comes, what became of it.

The answer is looked at with regular expressions alone while it comes: parsing every piece as JSON would cost more than
receiving it, and be part of what is measured. They look at every byte a fixed number of times, whatever a server sends.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlsplit

import aiohttp

from rollout_bench.contracts.record import ClientUse
from rollout_bench.core.errors import printable

SHORTEST_SECRET = 6
"""Letters of a header's word that may be a secret; shorter ones, as `true`, stand in too many texts."""


Prompt = list[int] | str
"""A prompt as token ids, as text, or as the messages of a chat."""


@dataclass(frozen=True)
class Target:
    """A server as requests see it.

    Attributes:
        url: base address, up to and with /v1.
        model: the model's name there.
        headers: what every request carries; the key is among them, so they are never printed.
        verify_tls: whether its certificate is checked.
        body: fields of every request besides prompt and max_tokens.
        chat: whether prompts are messages of a chat.
        tokenizer: folder or hub id of the model's tokenizer; None where nobody has it.
        trust_remote_code: whether that may be code which comes with the model.
    """

    url: str
    model: str
    headers: dict[str, str] = field(repr=False)
    verify_tls: bool
    body: dict[str, Any]
    chat: bool = False
    tokenizer: str | None = None
    trust_remote_code: bool = False

    @property
    def asked_at(self) -> str:
        """The address of completions."""
        return f"{self.url}/chat/completions" if self.chat else f"{self.url}/completions"

    def asking(self, prompt: Prompt, output_tokens: int) -> dict[str, Any]:
        """Return what is posted for one completion; of a chat `prompt` is a message's text, or all messages."""
        own: dict[str, Any] = {"model": self.model, "max_tokens": output_tokens}
        if not self.chat:
            return {**self.body, **own, "prompt": prompt}
        body = dict(self.body)
        if (logprobs := body.pop("logprobs", None)) is not None:
            body |= {"logprobs": True, "top_logprobs": logprobs}
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        return {**body, **own, "messages": messages}

    def quoted(self, text: str, most: int = 300) -> str:
        """Return what the server wrote as one line of at most `most` characters, with no word of a header's value."""
        for word in " ".join(self.headers.values()).split():
            if len(word) >= SHORTEST_SECRET:
                text = re.sub(re.escape(word), "***", text, flags=re.IGNORECASE)  # a host's name has small letters
        return printable(" ".join(text.split()), most)

    def settle(self, outcome: RequestOutcome) -> None:
        """Make what the server says in an `outcome` that failed fit to be kept and shown."""
        if outcome.error is None:
            return
        outcome.error = self.quoted(outcome.error)
        if outcome.finish_reason is not None:
            outcome.finish_reason = self.quoted(outcome.finish_reason, 40)

    @property
    def root(self) -> str:
        """The address above /v1, where /health and /metrics are."""
        return self.url.removesuffix("/v1")


@dataclass
class RequestOutcome:
    """What became of one request. Times are seconds of the monotonic clock.

    Attributes:
        due_s: when it was to be sent: when the load says, or else when the harness let it; None where it does not tell.
        sent_s: when it was sent, the connection standing; None where it never was.
        pieces_s: when each piece of the answer came; of a stream perhaps only the first and the last.
        piece_tokens: tokens in each piece; empty where only the first and the last are known.
        prompt_tokens: as the server counted them; None where it does not say.
        output_tokens: tokens that came back.
        counted: whether each token was seen; else the server said how many there were.
        finish_reason: why it ended: length, stop.
        status: HTTP status.
        error: why it failed; None where it did not.
        ended_s: when its answer ended or it failed.
        cut_s: when it was cut, since the time of the load was over; None where it was not.
        every_piece: whether `pieces_s` are those of every piece, though nobody tells how many tokens each had.
    """

    due_s: float | None = None
    sent_s: float | None = None
    pieces_s: list[float] = field(default_factory=list)
    piece_tokens: list[int] = field(default_factory=list)
    prompt_tokens: int | None = None
    output_tokens: int = 0
    counted: bool = False
    finish_reason: str | None = None
    status: int | None = None
    error: str | None = None
    ended_s: float | None = None
    cut_s: float | None = None
    every_piece: bool = False


@dataclass(frozen=True)
class LoadPass:
    """One pass of a load.

    Attributes:
        began_s: when it began, on the monotonic clock.
        elapsed_s: until the last answer had ended.
        outcomes: one for each request, in their order.
        client: what sending cost.
        sent: where not all were sent once: for each outcome, which request it is of, from 0, and how often that had
            been sent before.
    """

    began_s: float
    elapsed_s: float
    outcomes: list[RequestOutcome]
    client: ClientUse
    sent: list[tuple[int, int]] | None = None


class ServingFailed(Exception):  # noqa: N818 (an outcome)
    """There is no server, or it can't be measured.

    Args:
        category: kind of failure.
        cause: what happened, in one line; never with a key in it.
        fix: what to do.
    """

    def __init__(self, category: str, cause: str, fix: str) -> None:
        self.category = category
        self.cause = printable(" ".join(cause.split()), 1000)
        self.fix = fix
        super().__init__(self.cause)


ERROR_BYTES = 64 << 10
"""So much of an error is read: a sentence of it is shown."""

ERROR_S = 10.0
"""So long the text of an error is waited for."""

TEMPLATE_TOKENS = 4 << 10
"""More than a chat template adds to a message."""

TOKEN_BYTES = 4 << 10
"""More than one token takes in an answer, with the 20 most likely ones beside it."""


class Headers(Protocol):
    """The headers of an answer, as every HTTP client has them: whatever the letters of a name, it is found."""

    def get(self, name: str, /) -> str | None:
        """Return what stands under `name`."""


class Unusable(Exception):  # noqa: N818 (an outcome)
    """What a server answers is no answer; the text may quote it, and is not fit to be shown yet.

    Args:
        reason: why.
        status: its HTTP status, where that is why.
    """

    def __init__(self, reason: str, status: int = 200) -> None:
        self.status = status
        super().__init__(reason)


@dataclass(frozen=True)
class Question:
    """A completion that is asked for.

    Attributes:
        body: what is posted.
        output_tokens: so many tokens may come back.
        template_tokens: so many a chat template may add to what is posted.
    """

    body: bytes
    output_tokens: int
    template_tokens: int = 0

    @property
    def prompt_tokens(self) -> int:
        """More than any prompt has: no more tokens than its request has bytes, and what a template adds."""
        return len(self.body) + self.template_tokens

    @property
    def answer_bytes(self) -> int:
        """More than any answer takes: the prompt quoted in it, and every token."""
        return (1 << 20) + 16 * len(self.body) + TOKEN_BYTES * self.output_tokens


def parsed(content: str | bytes) -> Any:
    """Return `content` parsed as JSON; None where it is none, or nested deeper than anything of use."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def told(status: int | None, reason: str | None, content: str) -> str:
    """Return what a server said of a failure: its status, and its message without what is around it."""
    message = parsed(content)
    for name in ("error", "detail", "message"):
        if isinstance(message, dict) and name in message:
            message = message[name]
    head = " ".join(str(part) for part in (status, reason) if part)
    return ": ".join(filter(None, [head, message if isinstance(message, str) else content]))


def elsewhere(status: int, headers: Headers) -> str | None:
    """Return where a redirect leads, as a sentence; None where the answer is no redirect.

    It is never followed: the headers, a key among them, are for the host that was named, and so is what is measured.
    """
    location = headers.get("Location")
    if location is None or not 300 <= status < 400:
        return None
    try:
        host = urlsplit(location).hostname
    except ValueError:
        host = None
    return f"it redirects to {host or 'another of its paths'}, and redirects are not followed"


def encoding_of(headers: Headers) -> str | None:
    """Return how the answer is compressed, which nobody asked for; None where it is not."""
    found = (headers.get("Content-Encoding") or "").strip()
    return None if found.lower() in ("", "identity") else found


async def check_head(status: int, reason: str | None, headers: Headers, body: AsyncIterator[bytes]) -> None:
    """Raise `Unusable` where the head of an answer says that it is none, with the beginning of `body` in its words."""
    encoding = encoding_of(headers)
    if status == 200 and encoding is None:
        return
    if status == 200:
        raise Unusable(f"the answer is compressed ({encoding}), though that was not asked for")
    said = elsewhere(status, headers)
    if said is None and encoding is None:
        with contextlib.suppress(TimeoutError):
            said = (await asyncio.wait_for(beginning(body, ERROR_BYTES), ERROR_S)).decode(errors="replace")
    raise Unusable(told(status, reason, said or ""), status)


async def beginning(body: AsyncIterator[bytes], most: int) -> bytes:
    """Return what comes of `body`, until it is more than `most` bytes."""
    found = bytearray()
    async for piece in body:
        found += piece
        if len(found) > most:
            break
    return bytes(found)


def too_long(most: int) -> Unusable:
    """Return what to raise where an answer takes more than `most` bytes."""
    return Unusable(f"the answer is longer than {most} bytes, more than any to this request takes")


TOKEN_IDS = b'"token_ids":'
PROMPT_TOKEN_IDS = b'"prompt_token_ids":'
TEXT = re.compile(rb'"(?:text|content)":\s*"[^"]')
ERROR = re.compile(rb'"error":\s*[^n\s]')
"""An event with an error that is not null."""
GOOD_ENDS = ("length", "stop", None)
FINISH = re.compile(rb'"finish_reason":\s*"(\w{1,40})"')


def open_session(verify_tls: bool) -> aiohttp.ClientSession:
    """Return a session for `send`: any number of connections, and no limit on time, which the launch has."""
    trace = aiohttp.TraceConfig()
    trace.on_request_chunk_sent.append(_note_sent)  # the body, which aiohttp writes together with the headers
    return aiohttp.ClientSession(
        # vLLM's server closes an idle connection after 5 s, and what is sent at that very moment fails
        connector=aiohttp.TCPConnector(limit=0, ssl=verify_tls, keepalive_timeout=2.0),
        timeout=aiohttp.ClientTimeout(total=None),
        headers={"Accept-Encoding": "identity"},  # a few compressed bytes may be gigabytes
        auto_decompress=False,
        trace_configs=[trace],
    )


async def _note_sent(_session: aiohttp.ClientSession, context: Any, _chunk: Any) -> None:
    """Note when a request was sent: a thousand handed over at once take a second, and that is not the server's."""
    context.trace_request_ctx.sent_s = time.monotonic()


async def send(
    session: aiohttp.ClientSession,
    url: str,
    headers: dict[str, str],
    question: Question,
    outcome: RequestOutcome,
) -> None:
    """Send `question` and fill `outcome` with what comes back; no failure of the server or the network is raised."""
    try:
        async with session.post(
            url, data=question.body, headers=headers, allow_redirects=False, trace_request_ctx=outcome
        ) as response:
            outcome.status = response.status
            await check_head(response.status, response.reason, response.headers, response.content.iter_any())
            await _read_stream(response.content, question, outcome)
    except Unusable as error:
        outcome.error = str(error)
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
        outcome.error = f"{type(error).__name__}: {error}".rstrip(": ")
    outcome.ended_s = time.monotonic()


class Answer:
    """An answer that comes line by line; `outcome` is filled with what comes.

    Args:
        question: what was asked.
        outcome: what is known of the request so far.
    """

    def __init__(self, question: Question, outcome: RequestOutcome) -> None:
        self._question = question
        self._most = question.output_tokens
        self._outcome = outcome
        self._last = b"{}"
        self._ended = False

    def take(self, line: bytes, now_s: float) -> bool:
        """Take a line that came at `now_s`; False for the one that ends the stream.

        Raises:
            Unusable: more tokens came than were asked for, and who knows how many more are to come.
        """
        if not line.startswith(b"data:"):
            return True  # comments that keep a connection alive
        event = line[5:].strip()
        if event == b"[DONE]":
            self._ended = True
            return False
        self._last = event
        self._ended = _take(event, now_s, self._outcome) or self._ended
        if self._outcome.output_tokens > self._most and self._outcome.counted:
            raise Unusable(_too_many(self._outcome.output_tokens, self._most))
        return True

    def end(self) -> None:
        """Say what was wrong with it, after its last line."""
        outcome = self._outcome
        _count_claimed(parsed(self._last), self._question, outcome)
        if outcome.error is None and not self._ended:
            outcome.error = "the answer broke off before it was finished"
        elif outcome.error is None and not outcome.pieces_s:
            outcome.error = "the answer had no tokens in it"
        _check(self._question, outcome)


async def _read_stream(content: aiohttp.StreamReader, question: Question, outcome: RequestOutcome) -> None:
    waiting = bytearray()  # the beginning of a line whose end has not come
    left = question.answer_bytes
    answer = Answer(question, outcome)
    async for data in content.iter_any():
        now = time.monotonic()
        left -= len(data)
        if left < 0:
            raise too_long(question.answer_bytes)
        lines = data.split(b"\n")
        rest = lines.pop()
        if waiting and lines:
            waiting += lines[0]
            lines[0] = bytes(waiting)
            waiting.clear()
        for line in lines:
            if line:
                answer.take(line, now)
        if rest:
            waiting += rest
    answer.end()


def _take(event: bytes, now: float, outcome: RequestOutcome) -> bool:
    """Take one event of a stream; whether it is the last with tokens."""
    ids = listed(event, TOKEN_IDS)
    # of a chat in an event of its own, before the first token
    if not outcome.pieces_s and (prompt := listed(event, PROMPT_TOKEN_IDS)) is not None:
        outcome.prompt_tokens = prompt
    if ids is not None:
        tokens = ids
        outcome.counted = True
    else:
        tokens = 1 if TEXT.search(event) else 0
    if tokens:
        outcome.pieces_s.append(now)
        outcome.piece_tokens.append(tokens)
        outcome.output_tokens += tokens
    elif b'"choices"' not in event and ERROR.search(event):
        outcome.error = told(None, None, event.decode(errors="replace"))
        return True
    finish = FINISH.search(event)
    if finish is not None:
        outcome.finish_reason = finish[1].decode()
    return finish is not None


def _check(question: Question, outcome: RequestOutcome) -> None:
    """Refuse what has too few tokens, which would pass for a fast answer, or too many, which would pass for many."""
    if outcome.error is not None:
        return
    if outcome.finish_reason not in GOOD_ENDS:
        outcome.error = f"the server ended it with finish_reason {outcome.finish_reason}"
    elif outcome.output_tokens > question.output_tokens:
        outcome.error = _too_many(outcome.output_tokens, question.output_tokens)
    elif (outcome.prompt_tokens or 0) > question.prompt_tokens:
        outcome.error = f"{outcome.prompt_tokens} prompt tokens came back of a request of {len(question.body)} bytes"


def _too_many(tokens: int, most: int) -> str:
    return f"{tokens} tokens came where {most} were asked for at most"


def _count_claimed(answer: Any, question: Question, outcome: RequestOutcome) -> None:
    """Take the server's own counts where the tokens themselves were not seen."""
    usage = answer.get("usage") if isinstance(answer, dict) else None
    if not isinstance(usage, dict):
        return
    for name, most in (("prompt_tokens", question.prompt_tokens), ("completion_tokens", question.output_tokens)):
        claimed = usage.get(name)
        if type(claimed) is int and not 0 <= claimed <= most and outcome.error is None:
            outcome.error = f"the server says {name}: {claimed}, where 0 to {most} can be"
    if outcome.error is not None:
        return
    prompt, claimed = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if outcome.prompt_tokens is None and type(prompt) is int:
        outcome.prompt_tokens = prompt
    if type(claimed) is int and not outcome.counted:
        outcome.output_tokens = claimed
    elif type(claimed) is int and claimed != outcome.output_tokens:
        outcome.error = f"{outcome.output_tokens} tokens came and the server says {claimed}"


def listed(event: bytes, key: bytes) -> int | None:
    """Return how many values the first list behind `key` holds; None where there is none.

    It looks at each byte once, whatever the event is; a regular expression begins anew at each key, and takes ten times
    as long for the thousands of ids of a long prompt.
    """
    at = event.find(key)
    while at >= 0:
        begin = at + len(key)
        while event[begin : begin + 1].isspace():
            begin += 1
        if event[begin : begin + 1] == b"[":
            end = event.find(b"]", begin)
            if end < 0:
                return None
            return event.count(b",", begin, end) + 1 if event[begin + 1 : end].strip() else 0
        at = event.find(key, begin)
    return None
