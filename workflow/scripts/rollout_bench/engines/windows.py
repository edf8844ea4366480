"""Which steps of a pass a profile looks at: the computing of prompts, and decoding half-way through."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rollout_bench.engines.following import Following
from rollout_bench.engines.stepping import Stepping
from rollout_bench.engines.vllm_offline import Engine
from rollout_bench.records.profile import Phase, Step
from rollout_bench.workloads.requests import Request


class Windows:
    """Windows of steps of one phase.

    Args:
        stepping: runs the engine, or follows it.
        passes: the requests of one pass after the other.
    """

    def __init__(self, stepping: Stepping | Following, passes: Iterator[list[Request]]) -> None:
        self._stepping = stepping
        self._passes = passes
        self._sooner = 0

    def steps(self, phase: Phase, count: int, profiled: Engine | None) -> list[Step]:
        """At most `count` steps of `phase`, with the profiler of `profiled` around them where it is given.

        Prefill steps are all that compute prompts, of as many passes as it takes. Decode steps are those half-way
        through a pass: there the KV cache is as full as it is on average.
        """
        taken = self._decode(count, profiled) if phase == "decode" else self._prefill(count, profiled)
        self._stepping.abandon()
        return taken

    def _prefill(self, count: int, profiled: Engine | None) -> list[Step]:
        taken: list[Step] = []
        with _profiling(profiled):
            while len(taken) < count:
                self._stepping.begin(next(self._passes))
                while len(taken) < count and self._stepping.prefilling:
                    taken += self._next(profiled)
        return taken

    def _decode(self, count: int, profiled: Engine | None) -> list[Step]:
        """Where texts end before half of what they may have, an earlier part of a further pass is taken."""
        while True:
            asked = next(self._passes)
            most = max(request.output_tokens for request in asked)
            before = (most - count) // 2 >> self._sooner
            if self._come_to(asked, before):
                break
            if before < 1:
                return []
            self._sooner += 1
        taken: list[Step] = []
        with _profiling(profiled):
            for _ in range(min(count, most - 1)):
                taken += self._next(profiled)
        return taken

    def _come_to(self, asked: list[Request], before: int) -> bool:
        """Begins a pass and goes to `before` steps after its last prompt; False where it ended by then."""
        self._stepping.begin(asked)
        while self._stepping.prefilling:
            self._next(None)
        return all(self._next(None) for _ in range(1, before)) and self._stepping.running

    def _next(self, profiled: Engine | None) -> list[Step]:
        """The next step, in a list; an empty one once the pass is over."""
        step = self._stepping.step(profiled is not None)
        return [] if step is None else [step]


@contextmanager
def _profiling(engine: Engine | None) -> Iterator[None]:
    if engine is None:
        yield
        return
    engine.llm.start_profile()
    try:
        yield
    finally:
        engine.llm.stop_profile()
