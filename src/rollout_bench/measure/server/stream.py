"""One request over HTTP: its target, its answer as it arrives, its outcome.

While an answer arrives, only the fields of `Event` are decoded, and all others are skipped. Each byte is examined a
fixed number of times, whatever the server sends.
"""

import asyncio
import contextlib
import errno
import itertools
import json
import re
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec

from rollout_bench.contracts.load import Burstiness
from rollout_bench.contracts.record import ClientUse
from rollout_bench.core.errors import printable
from rollout_bench.workloads.requests import Request

SHORTEST_SECRET = 6
"""Minimum length of a header's word that is treated as secret; shorter words, such as `true`, are too common."""


Prompt = list[int] | str | tuple[dict[str, str], ...]
"""A prompt: token ids, text, or the messages of a chat that has had an answer."""


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
        """Return the JSON body of a completion; for a chat, `prompt` is the text of the only message."""
        body, logprobs = dict(self.body), self.body.get("logprobs")
        if self.chat and logprobs is not None:
            body |= {"logprobs": True, "top_logprobs": logprobs}
        asked = {"messages": _messages(prompt)} if self.chat else {"prompt": prompt}
        return {**body, "model": self.model, "max_tokens": output_tokens, **asked}

    def continued(self, prompt: Prompt, answered: "RequestOutcome", said: Prompt) -> Prompt:
        """Return the next prompt of a conversation: the last prompt, its answer, and `said` by the user."""
        if self.chat:
            answer = {"role": "assistant", "content": answered.text}
            return (*_messages(prompt), answer, *_messages(said))
        if isinstance(prompt, list) and isinstance(said, list):
            return [*prompt, *answered.token_ids, *said]
        return f"{prompt}{answered.text} {said}"

    def quoted(self, text: str, most: int = 300) -> str:
        """Return the server's `text` as one line of at most `most` characters, with words from header values masked."""
        for word in " ".join(self.headers.values()).split():
            if len(word) >= SHORTEST_SECRET:
                text = re.sub(re.escape(word), "***", text, flags=re.IGNORECASE)  # host names appear in lower case
        return printable(" ".join(text.split()), most)

    def settle(self, outcome: "RequestOutcome") -> None:
        """Make the server's texts in `outcome` safe to store and show."""
        outcome.error = outcome.error and self.quoted(outcome.error)
        outcome.finish_reason = outcome.finish_reason and self.quoted(outcome.finish_reason, 40)

    @property
    def root(self) -> str:
        """Address above /v1, with /health and /metrics."""
        return self.url.removesuffix("/v1")


def _messages(prompt: Prompt) -> tuple[dict[str, str], ...]:
    """Return the messages of a chat; a text is the user's only one."""
    return prompt if isinstance(prompt, tuple) else ({"role": "user", "content": str(prompt)},)


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
        cached_tokens: prompt tokens from the server's prefix cache; None if it does not report them.
        token_ids: tokens of the answer, if the next turn of a conversation repeats them.
        text: text of the answer, likewise.
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
    cached_tokens: int | None = None
    token_ids: list[int] = field(default_factory=list)
    text: str = ""


@dataclass(frozen=True)
class Load:
    """The requests of one pass, and how they are sent.

    A request with further turns is the first one of a conversation, which counts as one where requests are counted.

    Attributes:
        requests: the requests, repeated from the first after the last.
        prompts: the prompt of each request, as token ids or text.
        due_s: time at which each request is due, in seconds after the start, rising; None: when an earlier request
            ends, or as soon as possible.
        concurrency: largest number of simultaneous requests; None: unlimited.
        count: number of requests to send; None: as many as `duration_s` allows.
        duration_s: time after which sending stops and running requests are cut; None: send all requests.
        request_rate: requests per second, for load generators that draw their own times; None: see `due_s`.
        burstiness: shape of the gaps that such a load generator draws.
        seed: seed of its draws.
        request_timeout_s: time after which a request without a whole answer is given up; None: none is.
        said: for each request, the user's part of its further turns, as token ids or text; empty without conversations.
        rotating: whether all conversations are open, their next turns are due one after the other, and turns count.
    """

    requests: Sequence[Request]
    prompts: Sequence[Prompt]
    due_s: Sequence[float] | None
    concurrency: int | None
    count: int | None
    duration_s: float | None = None
    request_rate: float | None = None
    burstiness: Burstiness = "constant"
    seed: int = 0
    request_timeout_s: float | None = None
    said: Sequence[Sequence[Prompt]] = ()
    rotating: bool = False

    @property
    def in_turn(self) -> bool:
        """Whether `concurrency` users send, each as soon as its previous answer has arrived."""
        return self.due_s is None and self.concurrency is not None

    def order(self) -> Iterator[tuple[int, int]]:
        """Yield, for each request to send, its index in `requests` and how often it was sent before."""
        for number in itertools.count() if self.count is None else range(self.count):
            yield number % len(self.requests), number // len(self.requests)


@dataclass(frozen=True)
class LoadPass:
    """One pass of a load.

    Attributes:
        began_s: start time, on the monotonic clock.
        elapsed_s: time until the last answer ended, in seconds.
        outcomes: one for each request, in order.
        client: cost of sending.
        sent: for each outcome, the index of its request and how often that request was sent before.
        turns: for each outcome, its request as a turn of a conversation; empty if there are none.
    """

    began_s: float
    elapsed_s: float
    outcomes: list[RequestOutcome]
    client: ClientUse
    sent: list[tuple[int, int]]
    turns: list[Request] = field(default_factory=list)


ERROR_BYTES = 64 << 10
"""Largest number of bytes read from an error."""

ERROR_S = 10.0
"""Time limit for receiving the text of an error, in seconds."""

TEMPLATE_TOKENS = 4 << 10
"""Upper bound for the tokens that a chat template adds to a message."""

TOKEN_BYTES = 4 << 10
"""Upper bound for the bytes of one token in an answer, including the 20 most likely tokens."""

GOOD_ENDS = ("length", "stop", None)


class Unusable(Exception):  # noqa: N818 (an outcome)
    """The answer of a server cannot be used. The reason may quote text that is not yet safe to show."""


@dataclass(frozen=True)
class Question:
    """A completion request.

    Attributes:
        body: the posted body.
        output_tokens: largest allowed number of tokens in the answer.
        template_tokens: largest number of tokens that a chat template may add.
        goes_on: whether the next turn of a conversation repeats the answer.
    """

    body: bytes
    output_tokens: int
    template_tokens: int = 0
    goes_on: bool = False

    @property
    def prompt_tokens(self) -> int:
        """Upper bound for prompt tokens: the bytes of the request plus the tokens of the template."""
        return len(self.body) + self.template_tokens

    @property
    def answer_bytes(self) -> int:
        """Upper bound for the bytes of the answer: the quoted prompt and all tokens."""
        return (1 << 20) + 16 * len(self.body) + TOKEN_BYTES * self.output_tokens


class Delta(msgspec.Struct):
    """The addition of one event to a chat's message; servers name a model's thoughts in one of two ways."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None

    @property
    def has_text(self) -> bool:
        """Whether it has text: of the answer or of the thoughts, which the server counts as tokens too."""
        return bool(self.content or self.reasoning_content or self.reasoning)


class Choice(msgspec.Struct):
    """The only sequence of an answer, or the addition of one event to it."""

    text: str | None = None
    delta: Delta | None = None
    finish_reason: str | None = None
    token_ids: list[int] | None = None
    prompt_token_ids: msgspec.Raw = msgspec.Raw()


class Event(msgspec.Struct):
    """An event of a stream, or an answer that is not streamed. A chat has the prompt's ids outside of its choice."""

    choices: list[Choice] | None = None
    prompt_token_ids: msgspec.Raw = msgspec.Raw()
    usage: Any = None
    error: Any = None


_EVENTS = msgspec.json.Decoder(Event)


def event_of(content: bytes | bytearray) -> Event:
    """Return the event in `content`; an empty one if `content` is not JSON or has another form."""
    try:
        return _EVENTS.decode(content)
    except (msgspec.MsgspecError, RecursionError):
        return Event()


def parsed(content: str | bytes) -> Any:
    """Return `content` parsed as JSON; None if it is not JSON or is nested too deeply."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def server_message(status: int | None, reason: str | None, content: str) -> str:
    """Return the server's description of a failure: status and message, without the surrounding JSON."""
    message = parsed(content)
    for name in ("error", "detail", "message"):
        if isinstance(message, dict) and name in message:
            message = message[name]
    head = " ".join(str(part) for part in (status, reason) if part)
    return ": ".join(filter(None, [head, message if isinstance(message, str) else content]))


async def refusal(response: aiohttp.ClientResponse) -> str | None:
    """Return the server's text if it refuses; None if the answer that follows can be read.

    Redirects are never followed: the headers, with the key, are only for the configured host, and so is the
    measurement.

    Raises:
        Unusable: if the answer is compressed, which was not requested.
    """
    location, encoding = response.headers.get("Location"), response.headers.get("Content-Encoding", "").strip()
    if location is not None and 300 <= response.status < 400:
        host = None
        with contextlib.suppress(ValueError):
            host = urlsplit(location).hostname
        return f"it redirects to {host or 'another of its paths'}, and redirects are not followed"
    compressed = encoding.lower() not in ("", "identity")
    if response.status == 200 and compressed:
        raise Unusable(f"the answer is compressed ({encoding}), though that was not asked for")
    if response.status == 200:
        return None
    body = b""
    if not compressed:
        with contextlib.suppress(TimeoutError):
            body = await asyncio.wait_for(beginning(response, ERROR_BYTES), ERROR_S)
    return body[:ERROR_BYTES].decode(errors="replace")


async def beginning(response: aiohttp.ClientResponse, most: int) -> bytes:
    """Return the start of the answer's body, read until it exceeds `most` bytes."""
    try:
        return await response.content.readexactly(most + 1)
    except asyncio.IncompleteReadError as error:
        return error.partial


def open_session(verify_tls: bool) -> aiohttp.ClientSession:
    """Return a session with unlimited connections and time; the launch has its own limit."""
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
    if context.trace_request_ctx is not None:
        context.trace_request_ctx.sent_s = time.monotonic()


async def send(
    session: aiohttp.ClientSession,
    url: str,
    headers: dict[str, str],
    question: Question,
    outcome: RequestOutcome,
    timeout_s: float | None = None,
) -> None:
    """Send `question` and fill `outcome`; failures of server or network are stored there, not raised.

    One is that the answer is not whole after `timeout_s` seconds, which close the connection.
    """
    limit = aiohttp.ClientTimeout(total=timeout_s)
    try:
        async with session.post(
            url, data=question.body, headers=headers, timeout=limit, allow_redirects=False, trace_request_ctx=outcome
        ) as response:
            outcome.status = response.status
            if (refused := await refusal(response)) is not None:
                raise Unusable(server_message(response.status, response.reason, refused))
            await _read_stream(response.content, question, outcome)
    except Unusable as error:
        outcome.error = str(error)
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
        is_given_up = timeout_s is not None and isinstance(error, TimeoutError)
        outcome.error = f"no whole answer in {timeout_s:g} s (request_timeout_s)" if is_given_up else in_words(error)
    outcome.ended_s = time.monotonic()


WORDS: tuple[tuple[type[Exception], str], ...] = (
    (ConnectionRefusedError, "connection refused: nothing listens there"),
    (socket.gaierror, "no such host"),
    (ConnectionResetError, "the connection was reset"),
    (BrokenPipeError, "the connection was reset"),
    (aiohttp.ServerDisconnectedError, "the server closed the connection without an answer"),
    (aiohttp.ClientPayloadError, "the server closed the connection in the middle of an answer"),
    (TimeoutError, "no answer in time"),
)
"""Failure of a connection -> what it means."""


def in_words(error: Exception) -> str:
    """Return what the failure of a connection means; the error's own text, not yet safe to show, if that is unknown."""
    causes = [getattr(error, "os_error", None), error]  # aiohttp wraps errors of sockets
    number = getattr(error, "errno", None)
    if number in (errno.ECONNRESET, errno.EPIPE, errno.ECONNREFUSED):
        causes.append(OSError(number, ""))  # of the kind that belongs to the number
    refusals = re.findall(r"Errno (\d+)", str(error)) if "Multiple exceptions" in str(error) else []
    if refusals and {*refusals} == {str(errno.ECONNREFUSED)}:  # at each address of its name
        causes.append(ConnectionRefusedError())
    for cause in causes:
        for kind, words in WORDS:
            if isinstance(cause, kind):
                return words
    return f"{type(error).__name__}: {error}".rstrip(": ")


async def _read_stream(content: aiohttp.StreamReader, question: Question, outcome: RequestOutcome) -> None:
    waiting, left = bytearray(), question.answer_bytes
    answer = Answer(question, outcome)
    async for data in content.iter_any():
        now_s = time.monotonic()
        left -= len(data)
        if left < 0:
            most = question.answer_bytes
            raise Unusable(f"the answer is longer than {most} bytes, more than any to this request takes")
        waiting += data
        if b"\n" in data:
            *lines, waiting = waiting.split(b"\n")
            for line in lines:
                answer.take(line, now_s)
    answer.end()


class Answer:
    """An answer that arrives line by line and fills `outcome`.

    Args:
        question: the request.
        outcome: the request's outcome so far.
    """

    def __init__(self, question: Question, outcome: RequestOutcome) -> None:
        self._question = question
        self._outcome = outcome
        self._usage: Any = None
        self._ended = False

    def take(self, line: bytes | bytearray, now_s: float) -> None:
        """Process a line that arrived at `now_s`.

        Raises:
            Unusable: if more tokens arrived than were requested.
        """
        if not line.startswith(b"data:"):
            return  # comments that keep a connection alive
        content = line[5:].strip()
        event = event_of(content)
        self._usage = event.usage or self._usage
        if content == b"[DONE]":
            self._ended = True
        elif event.choices:
            self._add(event.choices[0], event.prompt_token_ids, now_s)
        elif event.choices is None and event.error:
            self._outcome.error, self._ended = server_message(None, None, content.decode(errors="replace")), True

    def _add(self, choice: Choice, prompt: msgspec.Raw, now_s: float) -> None:
        outcome, prompt_ids = self._outcome, bytes(choice.prompt_token_ids) or bytes(prompt)
        if prompt_ids.startswith(b"[") and not outcome.pieces_s:
            outcome.prompt_tokens = prompt_ids.count(b",") + 1  # reading the ids of a long prompt takes a millisecond
        if choice.token_ids is not None:
            tokens, outcome.counted = len(choice.token_ids), True
        else:
            tokens = 1 if choice.text or (choice.delta is not None and choice.delta.has_text) else 0
        if self._question.goes_on:
            outcome.token_ids += choice.token_ids or ()
            outcome.text += choice.text or (choice.delta and choice.delta.content) or ""
        if tokens:
            outcome.pieces_s.append(now_s)
            outcome.piece_tokens.append(tokens)
            outcome.output_tokens += tokens
        if choice.finish_reason is not None:
            outcome.finish_reason, self._ended = choice.finish_reason, True
        if outcome.counted and (error := self._too_many()):
            raise Unusable(error)

    def end(self) -> None:
        """Check the whole answer after its last line and store its error, if any."""
        self._outcome.error = self._outcome.error or self._wrong()

    def _wrong(self) -> str | None:
        """Return why the answer cannot be used; take the server's own counts where the client saw no tokens."""
        question, outcome = self._question, self._outcome
        usage = self._usage if isinstance(self._usage, dict) else {}
        limits = {"prompt_tokens": question.prompt_tokens, "completion_tokens": question.output_tokens}
        claimed = {name: usage[name] for name in limits if type(usage.get(name)) is int}
        for name, count in claimed.items():
            if not 0 <= count <= limits[name]:
                return f"the server says {name}: {count}, where 0 to {limits[name]} can be"
        if outcome.prompt_tokens is None:
            outcome.prompt_tokens = claimed.get("prompt_tokens")
        details = usage.get("prompt_tokens_details")
        cached = details.get("cached_tokens") if isinstance(details, dict) else None
        if type(cached) is int and 0 <= cached <= (outcome.prompt_tokens or 0):
            outcome.cached_tokens = cached
        seen, outcome.output_tokens = outcome.output_tokens, claimed.get("completion_tokens", outcome.output_tokens)
        problems = {
            f"{seen} tokens came and the server says {outcome.output_tokens}": (
                outcome.counted and seen != outcome.output_tokens
            ),
            "the answer broke off before it was finished": not self._ended,
            "the answer had no tokens in it": not outcome.pieces_s,
            f"the server ended it with finish_reason {outcome.finish_reason}": outcome.finish_reason not in GOOD_ENDS,
            f"{outcome.prompt_tokens} prompt tokens came back of a request of {len(question.body)} bytes": (
                (outcome.prompt_tokens or 0) > question.prompt_tokens
            ),
        }
        return next((problem for problem, found in problems.items() if found), self._too_many())

    def _too_many(self) -> str | None:
        came, most = self._outcome.output_tokens, self._question.output_tokens
        return f"{came} tokens came where {most} were asked for at most" if came > most else None
