"""One request over HTTP: its target, its answer as it arrives, its outcome.

While an answer arrives, it is only searched with regular expressions. Parsing each piece as JSON would cost more than
receiving it, and would distort the measurement. Each byte is examined a fixed number of times, whatever the server
sends.
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
"""Minimum length of a header's word that is treated as secret; shorter words, such as `true`, are too common."""


Prompt = list[int] | str
"""A prompt: token ids or text."""


@dataclass(frozen=True)
class Target:
    """A server as requests see it.

    Attributes:
        url: base address, up to and including /v1.
        model: the model's name on the server.
        headers: headers of every request. They include the key, so they are never printed.
        verify_tls: whether the server's certificate is checked.
        body: fields of every request except prompt and max_tokens.
        chat: whether prompts are chat messages.
        tokenizer: folder or hub id of the model's tokenizer; None if unknown.
        trust_remote_code: whether the tokenizer may run code from the model.
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
        """Address for completions."""
        return f"{self.url}/chat/completions" if self.chat else f"{self.url}/completions"

    def asking(self, prompt: Prompt, output_tokens: int) -> dict[str, Any]:
        """Return the JSON body of a completion; for a chat, `prompt` is the text of one message or all messages."""
        own: dict[str, Any] = {"model": self.model, "max_tokens": output_tokens}
        if not self.chat:
            return {**self.body, **own, "prompt": prompt}
        body = dict(self.body)
        if (logprobs := body.pop("logprobs", None)) is not None:
            body |= {"logprobs": True, "top_logprobs": logprobs}
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        return {**body, **own, "messages": messages}

    def quoted(self, text: str, most: int = 300) -> str:
        """Return the server's `text` as one line of at most `most` characters, with words from header values masked."""
        for word in " ".join(self.headers.values()).split():
            if len(word) >= SHORTEST_SECRET:
                text = re.sub(re.escape(word), "***", text, flags=re.IGNORECASE)  # host names appear in lower case
        return printable(" ".join(text.split()), most)

    def settle(self, outcome: RequestOutcome) -> None:
        """Make the server's texts in a failed `outcome` safe to store and show."""
        if outcome.error is None:
            return
        outcome.error = self.quoted(outcome.error)
        if outcome.finish_reason is not None:
            outcome.finish_reason = self.quoted(outcome.finish_reason, 40)

    @property
    def root(self) -> str:
        """Address above /v1, with /health and /metrics."""
        return self.url.removesuffix("/v1")


@dataclass
class RequestOutcome:
    """Outcome of one request. Times are seconds of the monotonic clock.

    Attributes:
        due_s: time at which the load or the harness scheduled the request; None if the harness does not report it.
        sent_s: time at which the request was sent on its open connection; None if it was not sent.
        pieces_s: arrival times of the pieces of the answer; some harnesses report only the first and the last.
        piece_tokens: tokens in each piece; empty if only the first and the last time are known.
        prompt_tokens: prompt tokens counted by the server; None if it does not report them.
        output_tokens: tokens in the answer.
        counted: whether the client saw each token; if not, `output_tokens` is the server's number.
        finish_reason: the server's reason for the end: length, stop.
        status: HTTP status.
        error: reason of the failure; None on success.
        ended_s: time at which the answer ended or failed.
        cut_s: time at which the request was cut because the load's time was over; None if it was not cut.
        every_piece: whether `pieces_s` has every piece although the tokens of each piece are unknown.
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
        began_s: start time, on the monotonic clock.
        elapsed_s: time until the last answer ended, in seconds.
        outcomes: one for each request, in order.
        client: cost of sending.
        sent: for each outcome, the index of its request and how often that request was sent before; None if each
            request was sent once.
    """

    began_s: float
    elapsed_s: float
    outcomes: list[RequestOutcome]
    client: ClientUse
    sent: list[tuple[int, int]] | None = None


ERROR_BYTES = 64 << 10
"""Largest number of bytes read from an error."""

ERROR_S = 10.0
"""Time limit for receiving the text of an error, in seconds."""

TEMPLATE_TOKENS = 4 << 10
"""Upper bound for the tokens that a chat template adds to a message."""

TOKEN_BYTES = 4 << 10
"""Upper bound for the bytes of one token in an answer, including the 20 most likely tokens."""


class Headers(Protocol):
    """Headers of an answer from any HTTP client; names are case-insensitive."""

    def get(self, name: str, /) -> str | None:
        """Return the value of header `name`."""


class Unusable(Exception):  # noqa: N818 (an outcome)
    """The answer of a server cannot be used.

    Args:
        reason: the reason, possibly with quoted text that is not yet safe to show.
        status: HTTP status, if it is the reason.
    """

    def __init__(self, reason: str, status: int = 200) -> None:
        self.status = status
        super().__init__(reason)


@dataclass(frozen=True)
class Question:
    """A completion request.

    Attributes:
        body: the posted body.
        output_tokens: largest allowed number of tokens in the answer.
        template_tokens: largest number of tokens that a chat template may add.
    """

    body: bytes
    output_tokens: int
    template_tokens: int = 0

    @property
    def prompt_tokens(self) -> int:
        """Upper bound for prompt tokens: the bytes of the request plus the tokens of the template."""
        return len(self.body) + self.template_tokens

    @property
    def answer_bytes(self) -> int:
        """Upper bound for the bytes of the answer: the quoted prompt and all tokens."""
        return (1 << 20) + 16 * len(self.body) + TOKEN_BYTES * self.output_tokens


def parsed(content: str | bytes) -> Any:
    """Return `content` parsed as JSON; None if it is not JSON or is nested too deeply."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def told(status: int | None, reason: str | None, content: str) -> str:
    """Return the server's description of a failure: status and message, without the surrounding JSON."""
    message = parsed(content)
    for name in ("error", "detail", "message"):
        if isinstance(message, dict) and name in message:
            message = message[name]
    head = " ".join(str(part) for part in (status, reason) if part)
    return ": ".join(filter(None, [head, message if isinstance(message, str) else content]))


def elsewhere(status: int, headers: Headers) -> str | None:
    """Return a sentence with the target of a redirect; None if the answer is not a redirect.

    Redirects are never followed: the headers, with the key, are only for the configured host, and so is the
    measurement.
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
    """Return the compression of the answer, although none was requested; None if it is not compressed."""
    found = (headers.get("Content-Encoding") or "").strip()
    return None if found.lower() in ("", "identity") else found


async def check_head(status: int, reason: str | None, headers: Headers, body: AsyncIterator[bytes]) -> None:
    """Raise `Unusable` if the head of an answer reports a failure or compression, quoting the start of `body`."""
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
    """Return the start of `body`, read until it exceeds `most` bytes."""
    found = bytearray()
    async for piece in body:
        found += piece
        if len(found) > most:
            break
    return bytes(found)


def too_long(most: int) -> Unusable:
    """Return the exception for an answer of more than `most` bytes."""
    return Unusable(f"the answer is longer than {most} bytes, more than any to this request takes")


TOKEN_IDS = b'"token_ids":'
PROMPT_TOKEN_IDS = b'"prompt_token_ids":'
TEXT = re.compile(rb'"(?:text|content)":\s*"[^"]')
ERROR = re.compile(rb'"error":\s*[^n\s]')
"""Event with a non-null error."""
GOOD_ENDS = ("length", "stop", None)
FINISH = re.compile(rb'"finish_reason":\s*"(\w{1,40})"')


def open_session(verify_tls: bool) -> aiohttp.ClientSession:
    """Return a session for `send` with unlimited connections and time; the launch has its own limit."""
    trace = aiohttp.TraceConfig()
    trace.on_request_chunk_sent.append(_note_sent)  # the body, which aiohttp writes together with the headers
    return aiohttp.ClientSession(
        # vLLM's server closes idle connections after 5 s, and a request sent at that moment would fail
        connector=aiohttp.TCPConnector(limit=0, ssl=verify_tls, keepalive_timeout=2.0),
        timeout=aiohttp.ClientTimeout(total=None),
        headers={"Accept-Encoding": "identity"},  # a few compressed bytes may be gigabytes
        auto_decompress=False,
        trace_configs=[trace],
    )


async def _note_sent(_session: aiohttp.ClientSession, context: Any, _chunk: Any) -> None:
    """Record when a request was sent: sending a thousand together takes a second that is not the server's."""
    context.trace_request_ctx.sent_s = time.monotonic()


async def send(
    session: aiohttp.ClientSession,
    url: str,
    headers: dict[str, str],
    question: Question,
    outcome: RequestOutcome,
) -> None:
    """Send `question` and fill `outcome`; failures of server or network are stored there, not raised."""
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
    """An answer that arrives line by line and fills `outcome`.

    Args:
        question: the request.
        outcome: the request's outcome so far.
    """

    def __init__(self, question: Question, outcome: RequestOutcome) -> None:
        self._question = question
        self._most = question.output_tokens
        self._outcome = outcome
        self._last = b"{}"
        self._ended = False

    def take(self, line: bytes, now_s: float) -> bool:
        """Process a line that arrived at `now_s`; return False for the line that ends the stream.

        Raises:
            Unusable: if more tokens arrived than were requested.
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
        """Check the whole answer after its last line and store its error, if any."""
        outcome = self._outcome
        _count_claimed(parsed(self._last), self._question, outcome)
        if outcome.error is None and not self._ended:
            outcome.error = "the answer broke off before it was finished"
        elif outcome.error is None and not outcome.pieces_s:
            outcome.error = "the answer had no tokens in it"
        _check(self._question, outcome)


async def _read_stream(content: aiohttp.StreamReader, question: Question, outcome: RequestOutcome) -> None:
    waiting = bytearray()  # the start of an incomplete line
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
    """Process one event of a stream; return whether it is the last with tokens."""
    ids = listed(event, TOKEN_IDS)
    # a chat sends the prompt's ids in a separate event before the first token
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
    """Store an error if the answer ended wrongly, has too many tokens, or has an impossible number of prompt tokens."""
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
    """Use the server's own counts if the client has not seen the tokens."""
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
    """Return the number of values in the first list after `key`; None if there is none.

    The search examines each byte once. A regular expression would restart at each key and take ten times as long for
    the thousands of ids of a long prompt.
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
