"""Events of a startup launch."""

from typing import Literal

from pydantic import Field

from rollout_bench.measure.launch.protocol import Event
from rollout_bench.modes.startup.phases import StartSpan


class StartObserved(Event):
    """An engine has started and generated a token. Times are on the machine's monotonic clock, in seconds."""

    event: Literal["start"] = "start"
    spans: list[StartSpan] = Field(description="Phases, which may overlap.")
    imports: float = Field(description="Time at which the engine's process began to import the engine.")
    began: float | None = Field(
        description="Time at which a waiting process received its order. Null if the start begins with the launch."
    )
    token: float = Field(
        description="Time at which the first token would have arrived if the request had been sent immediately."
    )
    cache_files: int
