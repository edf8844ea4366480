"""How long a launch takes: by a record of one like it, else by what is usual."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rollout_bench.contracts.load import LoadPoint
from rollout_bench.contracts.modes import mode_of
from rollout_bench.contracts.record import Launched, Record
from rollout_bench.contracts.spec import Spec, replicas, start_of
from rollout_bench.contracts.store import read_launched
from rollout_bench.core.errors import UserError
from rollout_bench.plan.planfile import Span

USUAL_S = 20.0, 240.0
"""Usual shortest and longest duration of a launch without its passes on an accelerator, in seconds.

On an H200, warm starts of Qwen3-1.7B and 8B took 15 to 50 s (h200-first-hour, h200-aa-5), the first 180 s.
"""

USUAL_TOKENS_PER_S = 15_000.0, 3_000.0
"""Output tokens per second of an engine on an accelerator, with which passes take their usual shortest and longest
time: the first is that of Qwen3-8B in bf16 on one H100 with 256 sequences; larger models and longer ones are slower."""


@dataclass(frozen=True)
class Cost:
    """Seconds of a launch: the start of its engine, everything else, and of the latter the passes that count."""

    start_s: float
    rest_s: float
    counted_s: float

    @classmethod
    def of(cls, record: Launched) -> "Cost":
        """Return the cost of a launch like the one of `record`."""
        started_s = 0.0 if record.after else record.start_s
        return cls(record.start_s, max(0.0, record.held_s - started_s), record.counted_s)


def first_record(folder: Path, mode: str) -> Launched | None:
    """Return the record of the first launch in an experiment's folder; None without a usable one."""
    path = min(folder.glob("launch-*.json"), default=None)
    return usable_record(path, mode) if path else None


def usable_record(path: Path, mode: str) -> Launched | None:
    """Return the record at `path`; None if it is damaged, which the summary reports: here only an estimate lacks it."""
    with contextlib.suppress(UserError):
        return read_launched(path, mode)
    return None


def cost_at_another_load(results: Path, spec: Spec, first: Callable[[Path, str], Launched | None]) -> Cost | None:
    """Return the cost of a launch of the engine or server of `spec` from a record of another load; None without one.

    The time of its passes is scaled by the number of output tokens; at loads it is that in which their requests arrive,
    or that in which the server answered as many, if that is longer. `first` returns the first record of a folder.
    """
    engine = _engine_of(spec)
    for folder in sorted((results / spec.mode).glob(f"{spec.model.name}_{spec.quant.name}_*")) if engine else ():
        record = first(folder, spec.mode)
        if record is not None and record.valid and _engine_of(record.spec) == engine:
            cost = Cost.of(record)
            if spec.load is not None and isinstance(record, Record):
                return _cost_at_loads(spec, spec.load.points, cost, record)
            tokens, measured = (_tokens_of_pass(each) * each.measuring.iterations for each in (spec, record.spec))
            counted_s = cost.counted_s * tokens / measured
            return Cost(cost.start_s, cost.rest_s - cost.counted_s + counted_s, counted_s)
    return None


def _engine_of(spec: Spec) -> str | None:
    """Return the same text for specs with one engine or running server; None for launches whose cost is their own."""
    return start_of(spec) if spec.endpoint is None else spec.endpoint.model_dump_json()


def _cost_at_loads(spec: Spec, points: Sequence[LoadPoint], cost: Cost, record: Record) -> Cost | None:
    """Return the cost of a launch at the loads `points` from a `record` with its `cost`; None if nothing was answered.

    A load at a rate is answered as fast as any was, and one with a limit at once as fast as that with the same limit.
    """
    shorter = record.spec.workload.longest_pair[1] / spec.workload.longest_pair[1]
    answered = [
        (None if each.point is None else _simultaneous_requests(each.point), shorter * each.sequences / each.elapsed_s)
        for each in record.iterations
    ]
    if not any(rate for _, rate in answered):
        return None
    passes_s = []
    for point in points:
        alike = [rate for at_once, rate in answered if at_once is not None and at_once == _simultaneous_requests(point)]
        most = max(alike, default=0.0) or max(rate for _, rate in answered)
        passes_s.append(max(_least_s(spec, point), _requests(spec, point) / most))
    counted_s = spec.measuring.iterations * sum(passes_s)
    between_s = spec.load.between_loads_s if spec.load else 0.0
    warm_s = spec.measuring.warmup_iterations * sum(passes_s) + (len(points) - 1) * between_s
    ran_s = sum(each.elapsed_s for each in record.iterations)
    return Cost(cost.start_s, max(0.0, cost.rest_s - ran_s) + warm_s + counted_s, counted_s)


def _simultaneous_requests(point: LoadPoint) -> float | None:
    """Return how many requests a load sends at once; None if they arrive at a rate."""
    return point.weight[1] if point.request_rate == "inf" else None


def _tokens_of_pass(spec: Spec) -> int:
    """Return the maximum number of output tokens of a pass of a launch, on all of its engines."""
    load = spec.workload
    return load.prompts * load.samples_per_prompt * load.longest_pair[1]


def loads_s(spec: Spec) -> float:
    """Return the seconds of a launch's loads and the pauses between them; 0 if the loads have no duration."""
    measuring = spec.measuring
    if spec.load is None:
        return 0.0
    held_s = sum(_least_s(spec, point) for point in spec.load.points)
    held_s *= measuring.warmup_iterations + measuring.iterations
    return held_s and held_s + (len(spec.load.points) - 1) * spec.load.between_loads_s


def usual_s(spec: Spec) -> Span | None:
    """Return the usual shortest and longest seconds of a launch before anything is measured; None if unknown."""
    held_s = round(loads_s(spec), 1)
    if spec.endpoint is not None:
        return (held_s, None) if held_s else None
    if spec.platform == "cpu":
        return None
    passes = spec.measuring.warmup_iterations + spec.measuring.iterations
    repeated = mode_of(spec.mode).passes == "repeated" and not held_s
    tokens = _tokens_of_pass(spec) * passes / replicas(spec) if repeated else 0.0
    least_s, most_s = (
        start_s + held_s + tokens / rate for start_s, rate in zip(USUAL_S, USUAL_TOKENS_PER_S, strict=True)
    )
    return round(least_s, 1), None if held_s else round(most_s, 1)


def _least_s(spec: Spec, point: LoadPoint) -> float:
    """Return the least seconds of a pass under `point`; 0 if it depends on the speed of the answers."""
    if point.least_s or not isinstance(point.request_rate, float):
        return point.least_s
    return (_requests(spec, point) - 1) / point.request_rate


def _requests(spec: Spec, point: LoadPoint) -> int:
    """Return the number of requests of a pass under `point`."""
    return point.due_requests or spec.workload.prompts * spec.workload.samples_per_prompt
