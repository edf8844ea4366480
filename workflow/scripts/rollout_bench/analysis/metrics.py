"""What can be compared: each metric's value for a launch, and which way is better."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rollout_bench.analysis.launches import LaunchMeasures
from rollout_bench.plan.fields import Metric


@dataclass(frozen=True)
class Measure:
    """A metric: `header` of its speed-up's column, `name` in a sentence, and its `value` for a launch."""

    header: str
    name: str
    higher_is_better: bool
    value: Callable[[LaunchMeasures], float]


METRICS: dict[Metric, Measure] = {
    "output_tokens_per_s": Measure("speed-up", "output tok/s", True, lambda launch: launch.output_tokens_per_s),
    "step_time_s": Measure("step speed-up", "iter. s", False, lambda launch: launch.iteration_elapsed_s),
    "startup_s": Measure("start-up speed-up", "start-up s", False, lambda launch: launch.startup_s),
}
"""Every metric that a config can name."""
