"""What controller and ranks of a placement tell each other: JSON lines, orders on stdin and answers over a pipe."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from rollout_bench.contracts.cycles import WeightProof
from rollout_bench.contracts.fields import Strict
from rollout_bench.contracts.placed_steps import RankStep
from rollout_bench.measure.launch.protocol import IterationDone, Job, PhaseBegins, Ready


class RankJob(Strict):
    """What a rank is to do; it is the first line of its stdin, and it does nothing before."""

    job: Job = Field(description="The launch's; the replica in it is the number of the rank's engine.")
    rank: int = Field(description="Its number, from 0.")
    cores: list[int] | None = Field(description="Cores that it may run on. Null: all that its parent may.")
    folder: str = Field(description="An empty folder that all ranks of the launch share: they find each other there.")


class RankLoaded(Strict):
    """The rank has its engine, its trainer, or both, and the engine has the trainer's weights."""

    event: Literal["loaded"] = "loaded"


class RankWaits(Strict):
    """All is ready for the next step, which begins once every rank has been told to go."""

    event: Literal["waits"] = "waits"


class StepOver(Strict):
    """The rank's part of a step is over. Times are on the machine's monotonic clock, in seconds."""

    event: Literal["over"] = "over"
    released: float = Field(description="When it was let go.")
    step: RankStep = Field(description="What it did; spans begin at moments of the clock, not of the step.")
    done: IterationDone | None = Field(
        description="What its engine generated, whose ranks all tell the same. Null where it has none."
    )
    gathered_bytes: int = Field(description="Bytes of the sequences that it handed over.")
    update_bytes: int = Field(description="Bytes of weights that its engine took.")
    proof: WeightProof | None = Field(description="What its engine's weights are now. Null where it has none.")


class RankFailed(Strict):
    """The rank gave up."""

    event: Literal["failed"] = "failed"
    exception: str = Field(description="Type and text of the exception, or the cause itself where it is known.")
    category: str = Field("", description="Kind of failure, where the rank knows it.")
    fix: str = Field("", description="What to do about it, where the rank knows it.")
    bereft: bool = Field(False, description="Whether it only lost the others, of which one must have failed before.")


Word = PhaseBegins | Ready | RankLoaded | RankWaits | StepOver | RankFailed
_WORD: TypeAdapter[Word] = TypeAdapter(Annotated[Word, Field(discriminator="event")])

TellController = Callable[[Word], None]

LOCALHOST = "127.0.0.1"
"""Where all ranks are."""

MEETING = "ROLLOUT_BENCH_MEETING"
"""Variable that names the file at which the ranks of an engine meet; no other engine of the machine has such a name."""

GO = b"go\n"
"""The order to begin the next step."""


def tell_controller(descriptor: int, word: Word) -> None:
    """Write `word` as one line to the pipe."""
    content = (word.model_dump_json() + "\n").encode()
    while content:
        content = content[os.write(descriptor, content) :]


def told_word(line: bytes) -> Word:
    """Return the word in `line`; raise `ValueError` where there is none."""
    return _WORD.validate_python(json.loads(line))
