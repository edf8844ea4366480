"""Events of a steps launch."""

from typing import Any, Literal

from rollout_bench.contracts.steps import StepRow
from rollout_bench.measure.launch.protocol import Event


class StepsObserved(Event):
    """A pass is over."""

    event: Literal["steps_seen"] = "steps_seen"
    rows: list[StepRow]


class EngineLimits(Event):
    """Facts of the engine that its scheduler needs."""

    event: Literal["engine_limits"] = "engine_limits"
    limits: dict[str, Any]
