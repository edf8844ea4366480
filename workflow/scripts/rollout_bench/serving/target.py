"""Where requests go, and what became of each."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from rollout_bench.errors import printable
from rollout_bench.records.online import ClientUse

SHORTEST_SECRET = 6
"""Letters of a header's word that may be a secret; shorter ones, as `true`, stand in too many texts."""


@dataclass(frozen=True)
class Target:
    """A server as requests see it.

    Attributes:
        url: base address, up to and with /v1.
        model: the model's name there.
        headers: what every request carries; the key is among them, so they are never printed.
        verify_tls: whether its certificate is checked.
        stream: whether answers come token by token.
        body: fields of every request besides prompt and max_tokens.
    """

    url: str
    model: str
    headers: dict[str, str] = field(repr=False)
    verify_tls: bool
    stream: bool
    body: dict[str, Any]

    def quoted(self, text: str, most: int = 300) -> str:
        """Return what the server wrote as one line of at most `most` characters, with no word of a header's value."""
        for word in " ".join(self.headers.values()).split():
            if len(word) >= SHORTEST_SECRET:
                text = re.sub(re.escape(word), "***", text, flags=re.IGNORECASE)  # a host's name has small letters
        return printable(" ".join(text.split()), most)

    def settle(self, outcome: Outcome) -> None:
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
class Outcome:
    """What became of one request. Times are seconds of the monotonic clock.

    Attributes:
        due_s: when it was to be sent: when the load says, or else when the harness let it; None where it does not tell.
        sent_s: when it was sent, the connection standing; None where it never was.
        pieces_s: when each piece of the answer came.
        piece_tokens: tokens in each piece.
        prompt_tokens: as the server counted them; None where it does not say.
        output_tokens: tokens that came back.
        counted: whether each token was seen; else the server said how many there were.
        finish_reason: why it ended: length, stop.
        status: HTTP status.
        error: why it failed; None where it did not.
        ended_s: when its answer ended or it failed.
        streamed: whether the pieces came one by one.
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
    streamed: bool = False


@dataclass(frozen=True)
class Pass:
    """One pass of a load.

    Attributes:
        began_s: when it began, on the monotonic clock.
        elapsed_s: until the last answer had ended.
        outcomes: one for each request, in their order.
        client: what sending cost.
    """

    began_s: float
    elapsed_s: float
    outcomes: list[Outcome]
    client: ClientUse


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
