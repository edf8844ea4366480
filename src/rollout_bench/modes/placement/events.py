"""Events of the ranks of a placement."""

from typing import Literal

from pydantic import Field

from rollout_bench.measure.launch.protocol import Event, IterationDone, Ready
from rollout_bench.modes.placement.record import RankStep


class RankReady(Event):
    """A rank of a placement has its engine, its trainer, or both, and its engine has the trainer's weights."""

    event: Literal["rank_ready"] = "rank_ready"
    ready: Ready | None = Field(description="The start of its engine. Null without an engine.")


class StepOver(Event):
    """The rank's part of a step is over. Times are on the machine's monotonic clock, in seconds."""

    event: Literal["step_over"] = "step_over"
    released: float = Field(description="Time at which the rank was released.")
    step: RankStep = Field(description="Activities of the rank; spans start at times of the clock, not of the step.")
    done: IterationDone | None = Field(
        description="Sequences of its engine, the same from all ranks of the engine. Null without an engine."
    )
    gathered_bytes: int = Field(description="Bytes of the sequences that the rank passed on.")
    update_bytes: int = Field(description="Bytes of weights that its engine received.")
