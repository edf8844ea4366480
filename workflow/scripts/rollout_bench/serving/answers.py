"""What a server is asked, and what of its answer can be taken: so much of it, parsed, and put into words."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

ERROR_BYTES = 64 << 10
"""So much of an error is read: a sentence of it is shown."""

ERROR_S = 10.0
"""So long the text of an error is waited for."""

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
    """

    body: bytes
    output_tokens: int

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
