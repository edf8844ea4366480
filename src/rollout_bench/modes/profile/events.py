"""Events of a profile launch."""

from typing import Literal

from pydantic import Field

from rollout_bench.measure.launch.protocol import Event
from rollout_bench.modes.profile.record import Step, TraceFile


class StepsDone(Event):
    """A window of engine steps is over, with or without the profiler."""

    event: Literal["steps"] = "steps"
    steps: list[Step]
    traces: list[TraceFile] = Field([], description="Traces that the profiler wrote of these steps.")
