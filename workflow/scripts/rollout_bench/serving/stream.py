"""One request over HTTP: sent, and its answer taken apart as it comes.

The answer is looked at with regular expressions alone while it comes: parsing every piece as JSON would cost more than
receiving it, and be part of what is measured.
"""

from __future__ import annotations

import json
import re
import time
from typing import Any

import aiohttp

from rollout_bench.serving.target import Outcome

TOKEN_IDS = re.compile(rb'"token_ids":\s*\[([^\]]*)\]')
PROMPT_TOKEN_IDS = re.compile(rb'"prompt_token_ids":\s*\[([^\]]*)\]')
TEXT = re.compile(rb'"(?:text|content)":\s*"[^"]')
ERROR = re.compile(rb'"error":\s*[^n\s]')
"""An event with an error that is not null."""
GOOD_ENDS = ("length", "stop", None)
FINISH = re.compile(rb'"finish_reason":\s*"(\w+)"')


def open_session(verify_tls: bool) -> aiohttp.ClientSession:
    """A session for `send`: any number of connections, and no limit on time, which the launch has."""
    trace = aiohttp.TraceConfig()
    trace.on_request_chunk_sent.append(_note_sent)  # the body, which aiohttp writes together with the headers
    return aiohttp.ClientSession(
        # vLLM's server closes an idle connection after 5 s, and what is sent at that very moment fails
        connector=aiohttp.TCPConnector(limit=0, ssl=verify_tls, keepalive_timeout=2.0),
        timeout=aiohttp.ClientTimeout(total=None),
        trace_configs=[trace],
    )


async def _note_sent(_session: aiohttp.ClientSession, context: Any, _chunk: Any) -> None:
    """A thousand requests that are handed over at once take a second to be sent, and that is not the server's."""
    context.trace_request_ctx.sent_s = time.monotonic()


async def send(
    session: aiohttp.ClientSession, url: str, headers: dict[str, str], body: bytes, stream: bool, outcome: Outcome
) -> None:
    """Sends `body` and fills `outcome` with what comes back; no failure of the server or the network is raised."""
    outcome.streamed = stream
    try:
        async with session.post(url, data=body, headers=headers, trace_request_ctx=outcome) as response:
            outcome.status = response.status
            if response.status != 200:
                outcome.error = told(response.status, response.reason, await response.text())
            elif stream:
                await _read_stream(response.content, outcome)
            else:
                read_whole(await response.read(), outcome)
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
        outcome.error = f"{type(error).__name__}: {error}".rstrip(": ")
    outcome.ended_s = time.monotonic()


class Answer:
    """An answer that comes line by line; `outcome` is filled with what comes.

    Args:
        outcome: what is known of the request so far.
    """

    def __init__(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self._last = b"{}"
        self._ended = False

    def take(self, line: bytes, now_s: float) -> bool:
        """Takes a line that came at `now_s`; False for the one that ends the stream."""
        if not line.startswith(b"data:"):
            return True  # blank lines between events, comments that keep a connection alive
        event = line[5:].strip()
        if event == b"[DONE]":
            self._ended = True
            return False
        self._last = event
        self._ended = _take(event, now_s, self._outcome) or self._ended
        return True

    def end(self) -> None:
        """Says what was wrong with it, after its last line."""
        outcome = self._outcome
        _count_claimed(_parsed(self._last), outcome)
        if outcome.error is None and not self._ended:
            outcome.error = "the answer broke off before it was finished"
        elif outcome.error is None and not outcome.pieces_s:
            outcome.error = "the answer had no tokens in it"
        _check_finish(outcome)


async def _read_stream(content: aiohttp.StreamReader, outcome: Outcome) -> None:
    waiting = b""
    answer = Answer(outcome)
    async for data in content.iter_any():
        now = time.monotonic()
        *lines, waiting = (waiting + data).split(b"\n")
        for line in lines:
            answer.take(line, now)
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


def read_whole(content: bytes, outcome: Outcome) -> None:
    """Takes an answer that came in one piece, now."""
    now = time.monotonic()
    answer = _parsed(content)
    choices = answer.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else None
    if choice is None:
        outcome.error = told(None, None, content.decode(errors="replace"))
        return
    ids = choice.get("token_ids")
    outcome.finish_reason = choice.get("finish_reason")
    if isinstance(ids, list):
        outcome.counted, outcome.output_tokens = True, len(ids)
        prompt = choice.get("prompt_token_ids")
        outcome.prompt_tokens = len(prompt) if isinstance(prompt, list) else None
    _count_claimed(answer, outcome)
    if not outcome.output_tokens and outcome.error is None:
        outcome.error = "the answer had no tokens in it"
        return
    outcome.pieces_s.append(now)
    outcome.piece_tokens.append(outcome.output_tokens)
    _check_finish(outcome)


def _check_finish(outcome: Outcome) -> None:
    """An answer that the server gave up is short, and would pass for a fast one."""
    if outcome.error is None and outcome.finish_reason not in GOOD_ENDS:
        outcome.error = f"the server ended it with finish_reason {outcome.finish_reason}"


def _count_claimed(answer: dict[str, Any], outcome: Outcome) -> None:
    """Takes the server's own counts where the tokens themselves were not seen."""
    said = answer.get("usage")
    usage = said if isinstance(said, dict) else {}
    if outcome.prompt_tokens is None and isinstance(usage.get("prompt_tokens"), int):
        outcome.prompt_tokens = usage["prompt_tokens"]
    claimed = usage.get("completion_tokens")
    if isinstance(claimed, int) and not outcome.counted:
        outcome.output_tokens = claimed
    elif isinstance(claimed, int) and claimed != outcome.output_tokens and outcome.error is None:
        outcome.error = f"{outcome.output_tokens} tokens came and the server says {claimed}"


def _numbers(inner: bytes) -> int:
    return inner.count(b",") + 1 if inner.strip() else 0


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(content)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def told(status: int | None, reason: str | None, content: str) -> str:
    """What a server said of a failure, in one short line."""
    answer = _parsed(content.encode())
    error = answer.get("error", answer.get("detail", content))
    message = error.get("message", error) if isinstance(error, dict) else error
    head = " ".join(str(part) for part in (status, reason) if part)
    return ": ".join(filter(None, [head, " ".join(str(message).split())[:300]]))
