"""One request over HTTP: sent, and its answer taken apart as it comes.

The answer is looked at with regular expressions alone while it comes: parsing every piece as JSON would cost more than
receiving it, and be part of what is measured. They look at every byte a fixed number of times, whatever a server sends.
"""

from __future__ import annotations

import re
import time
from typing import Any

import aiohttp

from rollout_bench.serving.answers import Question, Unusable, beginning, check_head, parsed, told, too_long
from rollout_bench.serving.target import Outcome

TOKEN_IDS = re.compile(rb'"token_ids":\s*\[([\d,\s]*)\]')
PROMPT_TOKEN_IDS = re.compile(rb'"prompt_token_ids":\s*\[([\d,\s]*)\]')
TEXT = re.compile(rb'"(?:text|content)":\s*"[^"]')
ERROR = re.compile(rb'"error":\s*[^n\s]')
"""An event with an error that is not null."""
GOOD_ENDS = ("length", "stop", None)
FINISH = re.compile(rb'"finish_reason":\s*"(\w{1,40})"')


def open_session(verify_tls: bool) -> aiohttp.ClientSession:
    """A session for `send`: any number of connections, and no limit on time, which the launch has."""
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
    """A thousand requests that are handed over at once take a second to be sent, and that is not the server's."""
    context.trace_request_ctx.sent_s = time.monotonic()


async def send(
    session: aiohttp.ClientSession,
    url: str,
    headers: dict[str, str],
    question: Question,
    stream: bool,
    outcome: Outcome,
) -> None:
    """Sends `question` and fills `outcome` with what comes back; no failure of the server or the network is raised."""
    outcome.streamed = stream
    try:
        async with session.post(
            url, data=question.body, headers=headers, allow_redirects=False, trace_request_ctx=outcome
        ) as response:
            outcome.status = response.status
            await check_head(response.status, response.reason, response.headers, response.content.iter_any())
            if stream:
                await _read_stream(response.content, question, outcome)
            else:
                content = await beginning(response.content.iter_any(), question.answer_bytes)
                if len(content) > question.answer_bytes:
                    raise too_long(question.answer_bytes)
                read_whole(content, question, outcome)
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

    def __init__(self, question: Question, outcome: Outcome) -> None:
        self._question = question
        self._most = question.output_tokens
        self._outcome = outcome
        self._last = b"{}"
        self._ended = False

    def take(self, line: bytes, now_s: float) -> bool:
        """Takes a line that came at `now_s`; False for the one that ends the stream.

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
        """Says what was wrong with it, after its last line."""
        outcome = self._outcome
        _count_claimed(parsed(self._last), self._question, outcome)
        if outcome.error is None and not self._ended:
            outcome.error = "the answer broke off before it was finished"
        elif outcome.error is None and not outcome.pieces_s:
            outcome.error = "the answer had no tokens in it"
        _check(self._question, outcome)


async def _read_stream(content: aiohttp.StreamReader, question: Question, outcome: Outcome) -> None:
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


def _take(event: bytes, now: float, outcome: Outcome) -> bool:
    """Takes one event of a stream; whether it is the last with tokens."""
    ids = TOKEN_IDS.search(event)
    if ids is not None:
        tokens = _numbers(ids[1])
        outcome.counted = True
        if not outcome.pieces_s and (prompt := PROMPT_TOKEN_IDS.search(event)) is not None:
            outcome.prompt_tokens = _numbers(prompt[1])
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


def read_whole(content: bytes, question: Question, outcome: Outcome) -> None:
    """Takes an answer that came in one piece, now."""
    now = time.monotonic()
    answer = parsed(content)
    choices = answer.get("choices") if isinstance(answer, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else None
    if choice is None:
        outcome.error = told(None, None, content.decode(errors="replace")) or "the answer is empty"
        return
    ids = choice.get("token_ids")
    finish = choice.get("finish_reason")
    outcome.finish_reason = finish if isinstance(finish, str) else None
    if isinstance(ids, list):
        outcome.counted, outcome.output_tokens = True, len(ids)
        prompt = choice.get("prompt_token_ids")
        outcome.prompt_tokens = len(prompt) if isinstance(prompt, list) else None
    _count_claimed(answer, question, outcome)
    if not outcome.output_tokens and outcome.error is None:
        outcome.error = "the answer had no tokens in it"
        return
    outcome.pieces_s.append(now)
    outcome.piece_tokens.append(outcome.output_tokens)
    _check(question, outcome)


def _check(question: Question, outcome: Outcome) -> None:
    """An answer that the server gave up is short, and would pass for a fast one; one that is too long, for many."""
    if outcome.error is not None:
        return
    if outcome.finish_reason not in GOOD_ENDS:
        outcome.error = f"the server ended it with finish_reason {outcome.finish_reason}"
    elif outcome.output_tokens > question.output_tokens:
        outcome.error = _too_many(outcome.output_tokens, question.output_tokens)
    elif (outcome.prompt_tokens or 0) > len(question.body):
        outcome.error = f"{outcome.prompt_tokens} prompt tokens came back of a request of {len(question.body)} bytes"


def _too_many(tokens: int, most: int) -> str:
    return f"{tokens} tokens came where {most} were asked for at most"


def _count_claimed(answer: Any, question: Question, outcome: Outcome) -> None:
    """Takes the server's own counts where the tokens themselves were not seen."""
    usage = answer.get("usage") if isinstance(answer, dict) else None
    if not isinstance(usage, dict):
        return
    for name, most in (("prompt_tokens", len(question.body)), ("completion_tokens", question.output_tokens)):
        claimed = usage.get(name)
        if type(claimed) is int and not 0 <= claimed <= most and outcome.error is None:
            # no prompt has more tokens than its request has bytes
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


def _numbers(inner: bytes) -> int:
    return inner.count(b",") + 1 if inner.strip() else 0
