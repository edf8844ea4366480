"""What can be compared: each metric's value for a launch, and which way is better."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from rollout_bench.analysis.launches import LaunchMeasures
from rollout_bench.analysis.service import KEPT_UP, Service
from rollout_bench.plan.fields import Metric


@dataclass(frozen=True)
class Measure:
    """A metric: `header` of its speed-up's column, `name` in a sentence, and its `value` for a launch, None without.

    `factor` makes of the value what `name` says, milliseconds of seconds. `of_load`: a load that says when requests
    arrive sets it, as long as the server keeps up.
    """

    header: str
    name: str
    higher_is_better: bool
    value: Callable[[LaunchMeasures], float | None]
    of_load: bool = False
    factor: float = 1


def _of(value: Callable[[Service], float | None]) -> Callable[[LaunchMeasures], float | None]:
    return lambda launch: None if launch.service is None else value(launch.service)


METRICS: dict[Metric, Measure] = {
    "output_tokens_per_s": Measure(
        "speed-up", "output tok/s", True, lambda launch: launch.output_tokens_per_s, of_load=True
    ),
    "step_time_s": Measure("step speed-up", "iter. s", False, lambda launch: launch.iteration_elapsed_s, of_load=True),
    "startup_s": Measure("start-up speed-up", "start-up s", False, lambda launch: launch.startup_s),
    "ttft_s": Measure("TTFT speed-up", "TTFT ms", False, _of(lambda service: service.ttft_s), factor=1000),
    "tpot_s": Measure("TPOT speed-up", "TPOT ms", False, _of(lambda service: service.tpot_s), factor=1000),
    "itl_s": Measure("ITL speed-up", "ITL ms", False, _of(lambda service: service.itl_s), factor=1000),
    "e2el_s": Measure("E2EL speed-up", "E2EL ms", False, _of(lambda service: service.e2el_s), factor=1000),
    "goodput_requests_per_s": Measure(
        "goodput speed-up", "goodput/s", True, _of(lambda service: service.goodput_requests_per_s)
    ),
}
"""Every metric that a config can name."""


def values_of(metric: Metric, launches: Iterable[LaunchMeasures]) -> dict[int, float]:
    """The metric by launch index, of those of `launches` that have it."""
    values = {launch.launch: METRICS[metric].value(launch) for launch in launches}
    return {launch: value for launch, value in values.items() if value is not None}


def fell_behind(launches: Iterable[LaunchMeasures]) -> bool:
    """Whether the server kept less than `KEPT_UP` of the rate, in the mean over `launches`; true where none tells."""
    kept = [launch.service.kept_up for launch in launches if launch.service and launch.service.kept_up is not None]
    return not kept or sum(kept) / len(kept) < KEPT_UP
