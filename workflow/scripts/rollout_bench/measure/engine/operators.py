"""Operators mode in the engine process: loads vLLM, and times its linear layers alone, round after round."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rollout_bench.contracts.inside import LinearShape, OperatorPoint
from rollout_bench.contracts.record import Flag
from rollout_bench.contracts.spec import OperatorsSettings
from rollout_bench.measure.engine.vllm import loaded
from rollout_bench.measure.launch.protocol import (
    IterationEnds,
    Job,
    Linears,
    PhaseBegins,
    PointsTimed,
    RoundDone,
    Tell,
    Wait,
)
from rollout_bench.measure.server.stream import ServingFailed

EXTENSION = "rollout_bench.measure.probes.linear_timing.LinearTiming"

MAX_PASSES = 64
"""Passes of a point in a round, at most: those over layers of microseconds cost more to prepare than to time."""

RESERVE = 3.0
"""Times what a round takes that must be left of the launch's time limit for one more."""

LEAST_ROUNDS = 3
"""Rounds that count without which the launch has failed."""


@dataclass
class Timed:
    """A point that is being timed: the shape of its layers, tokens, and how it is called in each round."""

    shape: int
    linear: LinearShape
    tokens: int
    passes: int
    through: str
    warmup: list[float] = field(default_factory=list)
    counted: list[float] = field(default_factory=list)

    @property
    def calls(self) -> int:
        """Calls in a round."""
        return self.passes * self.linear.layers

    def is_enough(self, settings: OperatorsSettings) -> bool:
        """Return whether the rounds that count are as many, and have taken as long, as is asked for."""
        return len(self.counted) >= settings.repeats and self.calls * sum(self.counted) >= settings.min_s

    def point(self) -> OperatorPoint:
        """As the record has it."""
        return OperatorPoint.model_validate(
            {
                **self.linear.model_dump(exclude={"layers"}),
                "tokens": self.tokens,
                "calls": self.calls,
                "through": self.through,
                "warmup_seconds_per_call": self.warmup,
                "seconds_per_call": self.counted,
            }
        )


def measure(job: Job, tell: Tell, wait: Wait) -> None:
    """Do `job`: tell each event, and wait for the word before each round."""
    began = time.perf_counter()
    spec = job.spec
    assert spec.operators is not None, "the spec is of operators mode"
    engine = loaded(job, tell, worker_extension_cls=EXTENSION)
    linears = engine.linears()
    if not linears:
        cause = f"{spec.model.name} has no linear layer that could be timed alone"
        raise ServingFailed("no_linear_layers", cause, "leave operators out of modes for this model")
    tell(Linears(linears=linears))
    tell(PhaseBegins(phase="warmup"))
    found = engine.llm.collective_rpc("rollout_bench_linear_bench")[0]
    points, missing = prepare(engine, linears, spec.operators)
    flags = [*expert_flags(found["experts"]), *missing_flags(missing), *graph_flags(points)]
    left_s = job.timeout_s - (time.perf_counter() - began)
    flags += run_rounds(engine, points, spec.operators, job.launch, left_s, tell, wait)
    tell(
        PointsTimed(
            points=[point.point() for point in points],
            threads=found["threads"],
            evicted_bytes=found["evicted_bytes"],
            flags=flags,
        )
    )


def prepare(
    engine: Any, linears: Sequence[LinearShape], settings: OperatorsSettings
) -> tuple[list[Timed], dict[tuple[int, int], str]]:
    """Call the layers of each point for the first time.

    Returns:
        The points that can be timed, by shape and tokens; and why others can't, by shape and tokens.
    """
    points, missing = [], {}
    for shape, linear in enumerate(linears):
        for tokens in settings.tokens:
            answer = engine.llm.collective_rpc("rollout_bench_prepare_linear", args=(shape, tokens))[0]
            if "why" in answer:
                missing[shape, tokens] = answer["why"]
                break  # more tokens take more memory
            wanted = math.ceil(settings.min_s / settings.repeats / answer["pass_s"])
            passes = min(max(1, wanted), MAX_PASSES)
            points.append(Timed(shape, linear, tokens, passes, answer["through"]))
    if not points:
        raise MemoryError(f"out of memory for a single call: {next(iter(missing.values()))}")
    return points, missing


def run_rounds(
    engine: Any,
    points: Sequence[Timed],
    settings: OperatorsSettings,
    launch: int,
    left_s: float,
    tell: Tell,
    wait: Wait,
) -> list[Flag]:
    """Return times every point once a round, in a new order each, until all are timed enough or the time is up.

    Returns:
        A flag where the time was up first.
    """
    began = time.perf_counter()
    order = random.Random(launch)
    # A point of which the first passes were slow may come short of its seconds: rounds go on for it, but not forever.
    most = settings.warmup_rounds + 2 * settings.repeats
    longest_s = 0.0
    for index in range(most):
        counts = index >= settings.warmup_rounds
        if index == settings.warmup_rounds:
            tell(PhaseBegins(phase="measuring"))
        if counts and all(point.is_enough(settings) for point in points):
            return []
        rounds = index - settings.warmup_rounds
        if rounds >= LEAST_ROUNDS and left_s - (time.perf_counter() - began) < RESERVE * longest_s:
            sentence = f"The time limit allowed {rounds} rounds of {settings.repeats}."
            return [Flag(code="fewer_rounds", severity="warning", sentence=sentence)]
        asked = list(points)
        order.shuffle(asked)
        wait()
        start = time.perf_counter()
        calls = [(point.shape, point.tokens, point.passes) for point in asked]
        timed = engine.llm.collective_rpc("rollout_bench_time_linears", args=(calls,))[0]
        tell(IterationEnds())
        longest_s = max(longest_s, time.perf_counter() - start)
        for point, seconds in zip(asked, timed, strict=True):
            (point.counted if counts else point.warmup).append(seconds)
        tell(RoundDone(round=index, counts=counts))
    return []


def expert_flags(experts: Sequence[str]) -> list[Flag]:
    """Return a flag where layers were left out since they are experts."""
    if not experts:
        return []
    sentence = (
        f"{len(experts)} modules of experts are not timed: which experts a token goes to decides what they compute."
    )
    return [Flag(code="experts_not_timed", severity="warning", sentence=sentence)]


def missing_flags(missing: dict[tuple[int, int], str]) -> list[Flag]:
    """Return a flag where there was no memory for the largest numbers of tokens."""
    if not missing:
        return []
    least = min(tokens for _, tokens in missing)
    sentence = f"There was no memory for {len(missing)} shapes from {least} tokens on: {next(iter(missing.values()))}"
    return [Flag(code="points_left_out", severity="warning", sentence=sentence)]


def graph_flags(points: Sequence[Timed]) -> list[Flag]:
    """Return a flag where some passes could be captured and others not, so that they don't compare."""
    called = [point for point in points if point.through == "calls"]
    if not called or len(called) == len(points):
        return []
    roles = ", ".join(dict.fromkeys(f"{point.linear.role} at {point.tokens}" for point in called))
    sentence = f"Not captured as a graph, so called from Python each time: {roles}."
    return [Flag(code="not_captured", severity="warning", sentence=sentence)]
