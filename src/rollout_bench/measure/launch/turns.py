"""Turns: messages between the launches of a block and its coordinator, in JSON lines over a pair of sockets.

launch       -- asks, finished -->  coordinator
launch       <-- turn, end -------  coordinator

A launch asks for a turn when it is ready for its next pass; this also ends its previous turn. The launch's guardian
inherits the socket, so the coordinator reads the end of file when launch and engine are gone, however they ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from rollout_bench.contracts.fields import Strict
from rollout_bench.contracts.record import Block


class Asks(Strict):
    """A launch is ready for its next pass."""

    says: Literal["asks"] = "asks"
    warming_up: bool = Field(description="Whether the pass belongs to the warm-up.")
    start_s: float = Field(description="Time from the start of the launch to its first request, in seconds.")
    pass_s: float | None = Field(description="Duration of its last pass, in seconds. Null before the first.")
    left_s: float = Field(description="Remaining time of the launch without waiting, in seconds.")


class Finished(Strict):
    """A launch has made all its passes; its engine waits for the order to end."""

    says: Literal["finished"] = "finished"


class Turn(Strict):
    """A launch may make its next pass."""

    says: Literal["turn"] = "turn"
    round: int | None = Field(None, description="Round of the pass. Null in the warm-up.")
    passes: int | None = Field(None, description="Number of passes that count, if the first of them begins.")


class End(Strict):
    """All passes of the block are made: a launch may end its engine."""

    says: Literal["end"] = "end"
    block: Block


Said = Asks | Finished
Answer = Turn | End
_MESSAGE: TypeAdapter[Said | Answer] = TypeAdapter(Annotated[Said | Answer, Field(discriminator="says")])


class Line:
    """One end of the connection between a launch and its coordinator."""

    def __init__(self, end: socket.socket) -> None:
        self.descriptor = end.detach()
        """Becomes readable when the other side sends a message or closes its end."""
        self.is_open = True
        """Whether the other side may still send messages."""
        self._rest = b""

    def say(self, message: Said | Answer) -> None:
        """Send `message`; if the other side is gone, a later read shows it."""
        content = message.model_dump_json().encode() + b"\n"
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while content:
                content = content[os.write(self.descriptor, content) :]

    def heard(self) -> list[Said | Answer]:
        """Return the new messages of the other side; call this once `descriptor` is readable."""
        try:
            content = os.read(self.descriptor, 1 << 20)
        except ConnectionResetError:
            content = b""
        self.is_open = bool(content)
        *lines, self._rest = (self._rest + content).split(b"\n")
        return [_MESSAGE.validate_python(json.loads(line)) for line in lines]

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.descriptor)


def line() -> tuple[Line, Line]:
    """Return both ends of a new connection."""
    one, other = socket.socketpair()
    return Line(one), Line(other)


@dataclass
class Turns:
    """A launch's view of its turns.

    Args:
        line: its end of the connection to the coordinator.
    """

    line: Line
    waited_s: float = 0.0
    """Total time spent waiting for turns, in seconds."""
    waiting: bool = False
    """Whether the launch waits for its turn or for the order to end."""
    round: int | None = None
    """Round of the current pass."""
    block: Block | None = None
    """The block of the launch, known after the last pass."""
    _asked: float | None = field(default=None, repr=False)

    @property
    def descriptor(self) -> int:
        """Becomes readable when an answer arrives or the coordinator is gone."""
        return self.line.descriptor

    def ask(self, asks: Asks) -> None:
        """Ask for the next turn, which ends the previous turn."""
        self.waiting, self._asked = True, time.monotonic()
        self.line.say(asks)

    def finish(self) -> None:
        """Report that all passes are made."""
        self.waiting = True
        self.line.say(Finished())

    def answers(self) -> list[Answer]:
        """Return the coordinator's answers; call this once `descriptor` is readable."""
        answers = [message for message in self.line.heard() if isinstance(message, Turn | End)]
        for answer in answers:
            self.waiting = False
            if self._asked is not None:
                self.waited_s += time.monotonic() - self._asked
                self._asked = None
            if isinstance(answer, Turn):
                self.round = answer.round
            else:
                self.block = answer.block.model_copy(update={"waited_s": round(self.waited_s, 3)})
        return answers

    def paused_s(self) -> float:
        """Return the total time spent waiting for turns so far, in seconds."""
        return self.waited_s + (0.0 if self._asked is None else time.monotonic() - self._asked)
