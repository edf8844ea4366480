"""Operators mode in the engine process: loads vLLM, and times its linear layers and experts alone, by rounds."""

from __future__ import annotations

import math
import random
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rollout_bench.contracts.inside import ExpertPoint, ExpertRouting, ExpertShape, LinearShape, OperatorPoint
from rollout_bench.contracts.record import Flag
from rollout_bench.contracts.spec import OperatorsSettings
from rollout_bench.measure.engine.vllm import LoadedEngine, loaded, source_of
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

EXTENSION = "rollout_bench.measure.probes.expert_timing.OperatorTiming"

MAX_PASSES = 64
"""Passes of a point in a round, at most: those over layers of microseconds cost more to prepare than to time."""

RESERVE = 3.0
"""Times what a round takes that must be left of the launch's time limit for one more."""

LEAST_ROUNDS = 3
"""Rounds that count without which the launch has failed."""


@dataclass
class TimedPoint(ABC):
    """A point that is being timed: the index of its shape, tokens, and how it is called in each round."""

    shape: int
    tokens: int
    passes: int
    through: str
    layers: int
    warmup: list[float] = field(default_factory=list, kw_only=True)
    counted: list[float] = field(default_factory=list, kw_only=True)

    @property
    def calls(self) -> int:
        """Calls in a round."""
        return self.passes * self.layers

    @property
    def asked(self) -> tuple[Any, ...]:
        """What the workers are asked for in a round."""
        return self.shape, self.tokens, self.passes

    @property
    @abstractmethod
    def name(self) -> str:
        """How a flag calls it."""

    def is_enough(self, settings: OperatorsSettings) -> bool:
        """Return whether the rounds that count are as many, and have taken as long, as is asked for."""
        return len(self.counted) >= settings.repeats and self.calls * sum(self.counted) >= settings.min_s

    def said(self) -> dict[str, Any]:
        """Return what the record has of it besides its shape."""
        return {
            "tokens": self.tokens,
            "calls": self.calls,
            "through": self.through,
            "warmup_seconds_per_call": self.warmup,
            "seconds_per_call": self.counted,
        }


@dataclass
class Timed(TimedPoint):
    """The linear layers of one shape."""

    linear: LinearShape

    @property
    def name(self) -> str:
        """How a flag calls it."""
        return f"{self.linear.role} at {self.tokens}"

    def point(self) -> OperatorPoint:
        """As the record has it."""
        return OperatorPoint.model_validate({**self.linear.model_dump(exclude={"layers"}), **self.said()})


@dataclass
class TimedExperts(TimedPoint):
    """The experts of one shape, with tokens that choose in one way; `met` says what they hit."""

    of: ExpertShape
    routing: ExpertRouting
    met: Mapping[str, float]

    @property
    def asked(self) -> tuple[Any, ...]:
        """What the workers are asked for in a round."""
        return *super().asked, self.routing

    @property
    def name(self) -> str:
        """How a flag calls it."""
        return f"experts, {self.routing}, at {self.tokens}"

    def point(self) -> ExpertPoint:
        """As the record has it."""
        return ExpertPoint.model_validate({**self.of.model_dump(), "routing": self.routing, **self.met, **self.said()})


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
    experts, left_out = prepare_experts(job, engine, found["experts"], spec.operators)
    timed = [*points, *experts]
    flags = [*left_out, *missing_flags(missing), *graph_flags(timed)]
    left_s = job.timeout_s - (time.perf_counter() - began)
    flags += run_rounds(engine, timed, spec.operators, job.launch, left_s, tell, wait)
    tell(
        PointsTimed(
            points=[point.point() for point in points],
            experts=[point.point() for point in experts] or None,
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
            points.append(Timed(shape, tokens, passes, answer["through"], linear.layers, linear))
    if not points:
        raise MemoryError(f"out of memory for a single call: {next(iter(missing.values()))}")
    return points, missing


def prepare_experts(
    job: Job, engine: LoadedEngine, modules: Sequence[str], settings: OperatorsSettings
) -> tuple[list[TimedExperts], list[Flag]]:
    """Call the experts of each point for the first time, with what routers chose for the workload's own prompts.

    Args:
        job: whose prompts are asked for.
        engine: loaded.
        modules: names of the modules that hold experts; none of a dense model, which costs nothing then.
        settings: tokens in a call, and how long each is timed.

    Returns:
        The points that can be timed, and flags on what can't.
    """
    if not modules:
        return [], []
    engine.llm.collective_rpc("rollout_bench_note_choices")
    prefill(job, engine, max(settings.tokens))
    told = engine.llm.collective_rpc("rollout_bench_expert_bench")[0]
    points: list[TimedExperts] = []
    refused: dict[str, str] = {}
    for number, content in enumerate(told["shapes"]):
        shape = ExpertShape.model_validate(content)
        for routing in told["routings"]:
            for tokens in settings.tokens:
                answer = engine.llm.collective_rpc("rollout_bench_prepare_experts", args=(number, tokens, routing))[0]
                if "why" in answer:
                    refused[f"{routing} routing from {tokens} tokens on"] = answer["why"]
                    break  # more tokens take more memory
                wanted = math.ceil(settings.min_s / settings.repeats / answer["pass_s"])
                met = {name: answer[name] for name in ("hit", "busiest", "weight_bytes")}
                passes = min(max(1, wanted), MAX_PASSES)
                points.append(
                    TimedExperts(number, tokens, passes, answer["through"], shape.layers, shape, routing, met)
                )
    return points, [*expert_flags(told["why"]), *refused_flags(refused)]


def prefill(job: Job, engine: LoadedEngine, tokens: int) -> None:
    """Have the engine compute prompts of the workload's first pass, until it had `tokens` of them or no more are left.

    One token is generated after each, and thrown away.
    """
    from vllm import SamplingParams

    found: dict[int, list[int]] = {}
    for request in source_of(job, engine.vocabulary).requests(0, 0):
        if sum(map(len, found.values())) >= tokens:
            break
        found[request.prompt] = request.prompt_token_ids
    engine.reset_prefix_cache()
    engine.llm.generate(
        [{"prompt_token_ids": ids} for ids in found.values()],
        SamplingParams(max_tokens=1, detokenize=False),
        use_tqdm=False,
    )


def run_rounds(
    engine: Any,
    points: Sequence[TimedPoint],
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
        calls = [point.asked for point in asked]
        timed = engine.llm.collective_rpc("rollout_bench_time_linears", args=(calls,))[0]
        tell(IterationEnds())
        longest_s = max(longest_s, time.perf_counter() - start)
        for point, seconds in zip(asked, timed, strict=True):
            (point.counted if counts else point.warmup).append(seconds)
        tell(RoundDone(round=index, counts=counts))
    return []


def expert_flags(why: Mapping[str, str]) -> list[Flag]:
    """Return a flag for each reason for which modules of experts are left out, of those that `why` has, by name."""
    return [
        Flag(
            code="experts_not_timed",
            severity="warning",
            sentence=f"{number} modules of experts are not timed alone: {reason}.",
        )
        for reason, number in Counter(why.values()).items()
    ]


def refused_flags(refused: Mapping[str, str]) -> list[Flag]:
    """Return a flag where a kernel of experts refused some calls, of which `refused` has the reasons."""
    if not refused:
        return []
    cases = ", ".join(refused)
    sentence = f"Experts are not timed with {cases}: {next(iter(refused.values()))}"
    return [Flag(code="experts_not_timed", severity="warning", sentence=sentence)]


def missing_flags(missing: dict[tuple[int, int], str]) -> list[Flag]:
    """Return a flag where there was no memory for the largest numbers of tokens."""
    if not missing:
        return []
    least = min(tokens for _, tokens in missing)
    sentence = f"There was no memory for {len(missing)} shapes from {least} tokens on: {next(iter(missing.values()))}"
    return [Flag(code="points_left_out", severity="warning", sentence=sentence)]


def graph_flags(points: Sequence[TimedPoint]) -> list[Flag]:
    """Return a flag where some passes could be captured and others not, so that they don't compare."""
    called = [point for point in points if point.through == "calls"]
    if not called or len(called) == len(points):
        return []
    roles = ", ".join(dict.fromkeys(point.name for point in called))
    sentence = f"Not captured as a graph, so called from Python each time: {roles}."
    return [Flag(code="not_captured", severity="warning", sentence=sentence)]
