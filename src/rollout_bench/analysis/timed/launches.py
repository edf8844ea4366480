"""Numbers of one launch, derived from the raw values of its record: compared metrics, and the parts of its time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rollout_bench.analysis.stats.anatomy import Anatomy, PassTimes, anatomy_of
from rollout_bench.analysis.timed.experiments import invalid_codes
from rollout_bench.analysis.timed.service import Requests, Service, service_of
from rollout_bench.contracts.load import KEPT_UP
from rollout_bench.contracts.record import CacheFacts, Flag, Record
from rollout_bench.contracts.spec import behind_server
from rollout_bench.numbers.iterations import columns_of
from rollout_bench.numbers.number import Columns, Number
from rollout_bench.numbers.registry import NUMBERS, MetricName
from rollout_bench.plan.serving import Slo

NO_LIMITS = Slo()


@dataclass(frozen=True)
class Pass:
    """A measured iteration: its number in the launch, its round in a block, and its amounts."""

    index: int
    round: int | None
    columns: Columns


@dataclass(frozen=True)
class LaunchMeasures:
    """Numbers of one launch.

    `values` has each known number by its name, and `passes` are the measured iterations.
    `warmup_output_tokens_per_s` has one value per warm-up iteration, only for figures. `service` has the service of an
    online launch; None offline or without a side file. `paired` is False if it is not a fair pair with its
    partner in the baseline. `block` is the id of the block of interleaved engines, or None. `automatic` is
    whether `iterations: auto` set the number of iterations. `kv_cache` is None if it could not be inspected.
    """

    launch: int
    values: Mapping[str, float]
    warmup_output_tokens_per_s: tuple[float, ...]
    kv_cache_tokens: int | None
    kv_cache_sequences: int | None
    weights_bytes: int | None
    flags: tuple[Flag, ...]
    paired: bool = True
    service: Service | None = None
    passes: tuple[Pass, ...] = ()
    block: str | None = None
    automatic: bool = False
    kv_cache: CacheFacts | None = None

    @property
    def output_tokens_per_s(self) -> float:
        """Output tokens per second, the number that every launch has."""
        return self.values["output_tokens_per_s"]

    @property
    def iteration_output_tokens_per_s(self) -> tuple[float, ...]:
        """Output tokens per second of each measured iteration, over all samples."""
        return tuple(each.columns["output_tokens"] / each.columns["elapsed_s"] for each in self.passes)

    @property
    def valid(self) -> bool:
        """Whether no flag makes the launch invalid."""
        return not invalid_codes(self.flags)


def measure(
    record: Record, requests: Requests | None = None, slo: Slo = NO_LIMITS, times: Sequence[PassTimes] = ()
) -> LaunchMeasures:
    """Compute the numbers of `record`, which must have a measured iteration, with its `requests` and `times`.

    `kv_cache_sequences` is the number of the workload's longest sequences (prompt and output tokens) that fit into the
    KV cache simultaneously without sharing.
    """
    measured = [iteration for iteration in record.iterations if not iteration.warmup]
    service = None if requests is None else service_of(requests, measured, slo)
    anatomies = {each.index: _known(anatomy_of(each)) for each in times}
    passes = tuple(
        Pass(iteration.index, iteration.round, columns | anatomies.get(iteration.index, {}))
        for iteration, columns in zip(measured, columns_of(record), strict=True)
    )
    of_requests = {} if service is None else _known(service)
    tokens = record.engine.kv_cache_tokens
    sequence_tokens = sum(record.spec.workload.longest_pair)
    weights = record.engine.weights_bytes_by_dtype
    return LaunchMeasures(
        launch=record.launch,
        values={
            name: value
            for name, number in NUMBERS.items()
            if (value := _value(number, record, passes, of_requests)) is not None
        },
        warmup_output_tokens_per_s=tuple(it.output_tokens / it.elapsed_s for it in record.iterations if it.warmup),
        kv_cache_tokens=tokens,
        kv_cache_sequences=None if tokens is None or not sequence_tokens else tokens // sequence_tokens,
        weights_bytes=None if weights is None else sum(weights.linear.values()) + sum(weights.other.values()),
        flags=tuple(record.validity),
        service=service,
        passes=passes,
        block=None if record.block is None else record.block.id,
        automatic=record.spec.measuring.iterations == "auto",
        kv_cache=record.engine.kv_cache,
    )


def _known(numbers: Anatomy | Service) -> dict[str, float]:
    return {name: value for name, value in vars(numbers).items() if value is not None}


def _value(number: Number, record: Record, passes: Sequence[Pass], of_requests: Columns) -> float | None:
    if number.read is not None:
        return number.read(record)
    if number.top:
        return number.over(each.columns for each in passes)
    return of_requests.get(number.name)


@dataclass(frozen=True)
class LaunchCost:
    """Seconds of one launch, by part.

    Args:
        process_s: until the engine process ran; 0 in records without it, which have it in `other_s`.
        import_s: importing the engine; 0 for a server.
        init_s: constructing it; 0 for a server. The engine's own log of it is in the record's `startup.reported`.
        warmup_s: warm-up iterations.
        measured_s: measured iterations.
        other_s: time between these: inspecting weights and machine, preparing iterations.
        waited_s: waiting for its turn among the engines of a block.
        server_start_s: import and construction in a server's processes; 0 for other engines.
    """

    process_s: float
    import_s: float
    init_s: float
    warmup_s: float
    measured_s: float
    other_s: float
    waited_s: float = 0.0
    server_start_s: float = 0.0

    @property
    def wall_s(self) -> float:
        """The whole launch, in seconds."""
        started_s = self.process_s + self.import_s + self.init_s + self.server_start_s
        return started_s + self.warmup_s + self.measured_s + self.other_s + self.waited_s


def parts_of(record: Record) -> LaunchCost:
    """Return the parts of a launch, which add up to its `wall_s`; `other_s` is never negative."""
    process_s, import_s, init_s = record.startup.process_s or 0.0, record.startup.import_s, record.startup.init_s
    warmup_s = sum(iteration.whole_s for iteration in record.iterations if iteration.warmup)
    measured_s = sum(iteration.whole_s for iteration in record.iterations if not iteration.warmup)
    waited_s = 0.0 if record.block is None else record.block.waited_s
    known_s = process_s + import_s + init_s + warmup_s + measured_s + waited_s
    starts = (0.0, 0.0, import_s + init_s) if behind_server(record.spec) else (import_s, init_s, 0.0)
    import_s, init_s, server_start_s = starts
    other_s = max(0.0, record.wall_s - known_s)
    return LaunchCost(process_s, import_s, init_s, warmup_s, measured_s, other_s, waited_s, server_start_s)


def values_of(metric: MetricName, launches: Iterable[LaunchMeasures]) -> dict[int, float]:
    """Return the metric by launch index, for the launches that have it."""
    return {launch.launch: launch.values[metric] for launch in launches if metric in launch.values}


def fell_behind(launches: Iterable[LaunchMeasures]) -> bool:
    """Return whether the server's mean rate over `launches` was below `KEPT_UP` of the requested rate.

    Also return True if the rate is unknown for all launches.
    """
    kept = list(values_of("kept_up_share", launches).values())
    return not kept or sum(kept) / len(kept) < KEPT_UP
