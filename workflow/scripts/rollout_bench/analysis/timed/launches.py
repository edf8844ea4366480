"""One launch in numbers, derived from the raw values of its record; what can be compared, and what its time went to."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from rollout_bench.analysis.stats.intervals import mean
from rollout_bench.analysis.timed.experiments import invalid_codes
from rollout_bench.analysis.timed.service import Requests, Service, service_of
from rollout_bench.contracts.fields import Metric
from rollout_bench.contracts.load import longest
from rollout_bench.contracts.record import Flag, Iteration, Record
from rollout_bench.contracts.saturation import KEPT_UP
from rollout_bench.plan.serving import Slo

NO_LIMITS = Slo()


@dataclass(frozen=True)
class LaunchMeasures:
    """One launch in numbers.

    Rates are sums over the measured iterations divided by the sum of their elapsed times.
    `iteration_output_tokens_per_s` has one value for each measured iteration, `warmup_output_tokens_per_s`
    one for each warm-up iteration, which came before and enters nothing else. `service` says how an online launch
    served its requests, None offline and where its side file does not tell. `in_turn` is False where the launch did
    not take turns with its partner in the baseline.
    """

    launch: int
    output_tokens_per_s: float
    total_tokens_per_s: float
    requests_per_s: float
    sequences_per_s: float
    iteration_elapsed_s: float
    iteration_output_tokens_per_s: tuple[float, ...]
    warmup_output_tokens_per_s: tuple[float, ...]
    startup_s: float
    kv_cache_tokens: int | None
    kv_cache_sequences: int | None
    weights_bytes: int | None
    flags: tuple[Flag, ...]
    in_turn: bool = True
    service: Service | None = None

    @property
    def valid(self) -> bool:
        """False when a flag says that the launch is no result."""
        return not invalid_codes(self.flags)


def measure(record: Record, requests: Requests | None = None, slo: Slo = NO_LIMITS) -> LaunchMeasures:
    """Derives the numbers of `record`, which must hold at least one measured iteration, and of its `requests`.

    `startup_s` is import plus construction of the engine. `kv_cache_sequences` is how many of the
    workload's longest sequences (prompt and output tokens) the KV cache holds at once, sharing nothing.
    """
    measured = [iteration for iteration in record.iterations if not iteration.warmup]
    elapsed_s = sum(iteration.elapsed_s for iteration in measured)
    output_tokens = sum(iteration.output_tokens for iteration in measured)
    prompt_tokens = sum(iteration.prompt_tokens for iteration in measured)
    tokens = record.engine.kv_cache_tokens
    sequence_tokens = longest(record.spec.workload.prompt_tokens) + longest(record.spec.workload.output_tokens)
    weights = record.engine.weights_bytes_by_dtype
    return LaunchMeasures(
        launch=record.launch,
        output_tokens_per_s=output_tokens / elapsed_s,
        total_tokens_per_s=(prompt_tokens + output_tokens) / elapsed_s,
        requests_per_s=sum(iteration.requests for iteration in measured) / elapsed_s,
        sequences_per_s=sum(iteration.sequences for iteration in measured) / elapsed_s,
        iteration_elapsed_s=mean([iteration.elapsed_s for iteration in measured]),
        iteration_output_tokens_per_s=tuple(map(output_rate, measured)),
        warmup_output_tokens_per_s=tuple(output_rate(it) for it in record.iterations if it.warmup),
        startup_s=record.startup.import_s + record.startup.init_s,
        kv_cache_tokens=tokens,
        kv_cache_sequences=None if tokens is None or not sequence_tokens else tokens // sequence_tokens,
        weights_bytes=None if weights is None else sum(weights.linear.values()) + sum(weights.other.values()),
        flags=tuple(record.validity),
        service=None if requests is None else service_of(requests, measured, slo),
    )


def output_rate(iteration: Iteration) -> float:
    """Output tokens per second of one iteration, all samples counted."""
    return iteration.output_tokens / iteration.elapsed_s


@dataclass(frozen=True)
class LaunchCost:
    """Seconds of one launch, by part.

    Args:
        process_s: until the engine process ran; 0 in records that don't say, where it is in `other_s`.
        import_s: importing the engine.
        init_s: constructing it; what the engine logged of this is in the record's `startup.reported`.
        warmup_s: warm-up iterations.
        measured_s: iterations that count.
        other_s: what lies between: looking at the loaded weights and at the machine, preparing iterations.
    """

    process_s: float
    import_s: float
    init_s: float
    warmup_s: float
    measured_s: float
    other_s: float

    @property
    def wall_s(self) -> float:
        """The whole launch, in seconds."""
        return self.process_s + self.import_s + self.init_s + self.warmup_s + self.measured_s + self.other_s


def parts_of(record: Record) -> LaunchCost:
    """The parts of a launch, which add up to its `wall_s`; `other_s` is never negative."""
    process_s, import_s, init_s = record.startup.process_s or 0.0, record.startup.import_s, record.startup.init_s
    warmup_s = sum(iteration.elapsed_s for iteration in record.iterations if iteration.warmup)
    measured_s = sum(iteration.elapsed_s for iteration in record.iterations if not iteration.warmup)
    known_s = process_s + import_s + init_s + warmup_s + measured_s
    return LaunchCost(process_s, import_s, init_s, warmup_s, measured_s, max(0.0, record.wall_s - known_s))


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
