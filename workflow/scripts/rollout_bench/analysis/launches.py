"""What one launch measured, derived from the raw values of its record. Warm-up iterations never count."""

from __future__ import annotations

from dataclasses import dataclass

from rollout_bench.analysis.requests import Requests
from rollout_bench.analysis.service import Service, service_of
from rollout_bench.analysis.statistics import mean
from rollout_bench.analysis.validity import invalid_codes
from rollout_bench.plan.loads import longest
from rollout_bench.plan.serving import Slo
from rollout_bench.records.record import Flag, Iteration, Record

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
