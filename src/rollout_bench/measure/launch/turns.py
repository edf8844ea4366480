"""Turns: how the launches of a block agree on who makes a pass, in JSON lines over a pair of sockets.

launch       -- asks, finished -->  coordinator
launch       <-- turn, end -------  coordinator

A launch asks for its turn once all is ready for its next pass, and so says that its turn before is over. The guardian
of the launch inherits its socket: the coordinator reads the end of file when launch and engine are gone, however the
launch ended.
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
    warming_up: bool = Field(description="Whether the pass is one of the warm-up.")
    start_s: float = Field(description="From the launch's beginning until it asked first, in seconds.")
    pass_s: float | None = Field(description="How long its last pass took, in seconds. Null before the first.")
    left_s: float = Field(description="How long the launch may still take, waiting apart, in seconds.")


class Finished(Strict):
    """A launch has made all of its passes; its engine waits to be ended."""

    says: Literal["finished"] = "finished"


class Turn(Strict):
    """A launch may make its next pass."""

    says: Literal["turn"] = "turn"
    round: int | None = Field(None, description="The round that the pass belongs to. Null in the warm-up.")
    passes: int | None = Field(None, description="How many passes are to count, where the first of them begins.")


class End(Strict):
    """All passes of all launches that it was measured among are made: a launch may end its engine."""

    says: Literal["end"] = "end"
    block: Block


Said = Asks | Finished
Answer = Turn | End
_MESSAGE: TypeAdapter[Said | Answer] = TypeAdapter(Annotated[Said | Answer, Field(discriminator="says")])


class Line:
    """One end of the line between a launch and its coordinator."""

    def __init__(self, end: socket.socket) -> None:
        self.descriptor = end.detach()
        """Becomes readable when the other side says something, or is gone."""
        self.is_open = True
        """Whether the other side may still say something."""
        self._rest = b""

    def say(self, message: Said | Answer) -> None:
        """Send `message`; that the other side is gone, reading says."""
        content = message.model_dump_json().encode() + b"\n"
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while content:
                content = content[os.write(self.descriptor, content) :]

    def heard(self) -> list[Said | Answer]:
        """Return what the other side said since; call it once `descriptor` is readable."""
        try:
            content = os.read(self.descriptor, 1 << 20)
        except ConnectionResetError:
            content = b""
        self.is_open = bool(content)
        *lines, self._rest = (self._rest + content).split(b"\n")
        return [_MESSAGE.validate_python(json.loads(line)) for line in lines]

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self.descriptor)


def line() -> tuple[Line, Line]:
    """Return both ends of a new line."""
    one, other = socket.socketpair()
    return Line(one), Line(other)


@dataclass
class Turns:
    """What a launch knows of its turns.

    Args:
        line: its end of the line to the coordinator.
    """

    line: Line
    waited_s: float = 0.0
    """For how long it has waited, all together, in seconds."""
    waiting: bool = False
    """Whether it waits for its turn, or for the end."""
    round: int | None = None
    """The round of the pass that is running."""
    block: Block | None = None
    """What it was measured among, once all is over."""
    _asked: float | None = field(default=None, repr=False)

    @property
    def descriptor(self) -> int:
        """Becomes readable when there is an answer, or the coordinator is gone."""
        return self.line.descriptor

    def ask(self, asks: Asks) -> None:
        """Ask for the next turn, which ends the turn before."""
        self.waiting, self._asked = True, time.monotonic()
        self.line.say(asks)

    def finish(self) -> None:
        """Say that all passes are made."""
        self.waiting = True
        self.line.say(Finished())

    def answers(self) -> list[Answer]:
        """Return what the coordinator answered; call it once `descriptor` is readable."""
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
        """Return for how long it has waited for its turn until now, in seconds."""
        return self.waited_s + (0.0 if self._asked is None else time.monotonic() - self._asked)
