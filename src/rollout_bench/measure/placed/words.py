"""Messages between controller and ranks of a placement: JSON lines, orders on stdin and answers over a pipe."""

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
    """Work for a rank: the first line of its stdin. The rank does nothing before it arrives."""

    job: Job = Field(description="The launch's job.")
    rank: int = Field(description="Number of the rank, from 0.")
    cores: list[int] | None = Field(description="Cores that the rank may use. Null: all cores of its parent.")
    folder: str = Field(description="An empty folder that all ranks of the launch share, to find each other.")


class RankLoaded(Strict):
    """The rank has its engine, its trainer, or both, and its engine has the trainer's weights."""

    event: Literal["loaded"] = "loaded"


class RankWaits(Strict):
    """The rank is ready for the next step, which begins when all ranks receive the order."""

    event: Literal["waits"] = "waits"


class StepOver(Strict):
    """The rank's part of a step is over. Times are on the machine's monotonic clock, in seconds."""

    event: Literal["over"] = "over"
    released: float = Field(description="Time at which the rank was released.")
    step: RankStep = Field(description="Activities of the rank; spans start at times of the clock, not of the step.")
    done: IterationDone | None = Field(
        description="Sequences of its engine, the same from all ranks of the engine. Null without an engine."
    )
    gathered_bytes: int = Field(description="Bytes of the sequences that the rank passed on.")
    update_bytes: int = Field(description="Bytes of weights that its engine received.")
    proof: WeightProof | None = Field(description="Proof of its engine's current weights. Null without an engine.")


class RankFailed(Strict):
    """The rank failed."""

    event: Literal["failed"] = "failed"
    exception: str = Field(description="Type and text of the exception, or the cause if it is known.")
    category: str = Field("", description="Category of the failure, if known.")
    fix: str = Field("", description="Remedy, if known.")
    bereft: bool = Field(False, description="Whether the rank only lost another rank, which must have failed first.")


Word = PhaseBegins | Ready | RankLoaded | RankWaits | StepOver | RankFailed
_WORD: TypeAdapter[Word] = TypeAdapter(Annotated[Word, Field(discriminator="event")])

TellController = Callable[[Word], None]

LOCALHOST = "127.0.0.1"
"""Address of all ranks."""

MEETING = "ROLLOUT_BENCH_MEETING"
"""Variable with the file at which the ranks of an engine meet; its name is unique on the machine."""

GO = b"go\n"
"""The order to begin the next step."""


def tell_controller(descriptor: int, word: Word) -> None:
    """Write `word` as one line to the pipe."""
    content = (word.model_dump_json() + "\n").encode()
    while content:
        content = content[os.write(descriptor, content) :]


def told_word(line: bytes) -> Word:
    """Return the message in `line`.

    Raises:
        ValueError: if `line` is not a message.
    """
    return _WORD.validate_python(json.loads(line))
