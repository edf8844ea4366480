"""Follows an engine step by step, and selects steps to measure."""

import gc
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from rollout_bench.contracts.phases import Phase
from rollout_bench.measure.engine.vllm import LoadedEngine
from rollout_bench.modes.profile.record import WHOLE_STEP, Step
from rollout_bench.workloads.requests import Request


class Following:
    """Submits passes of a workload, and follows the engine step by step.

    The computed work is inferred from the returned tokens. A step that ends no prompt and returns no token is not seen;
    its time is added to the next. The step that ends a prompt counts all its uncached tokens. A core in this process
    works while it is called. A core in another process works on: a step lasts from one of its answers to the next, and
    it may be a few steps ahead of the answers.

    Args:
        engine: a loaded engine.
        apart: whether its core is in another process.
    """

    def __init__(self, engine: LoadedEngine, *, apart: bool) -> None:
        self._engine, self._apart = engine, apart
        self._llm_engine: Any = engine.llm.llm_engine
        self._passes = 0
        self._ids: list[str] = []
        self._prompts: dict[str, int] = {}
        self._last_s = 0.0
        self._waited_s = 0.0

    def begin(self, asked: Sequence[Request]) -> None:
        """Submit the requests of a pass, one for each sequence, after clearing the engine's prefix cache."""
        self.abandon()
        self._engine.reset_prefix_cache()
        self._passes += 1
        gc.collect()
        sampling = self._engine.sampling_of([request.output_tokens for request in asked], single=True)
        each = sampling if isinstance(sampling, list) else [sampling] * len(asked)
        self._last_s, self._waited_s = time.perf_counter(), 0.0
        for number, (request, parameters) in enumerate(zip(asked, each, strict=True)):
            name = f"pass-{self._passes}-{number}"
            self._ids.append(name)
            self._prompts[name] = len(request.prompt_token_ids)
            prompt = {"prompt_token_ids": request.prompt_token_ids}
            self._llm_engine.add_request(name, prompt, parameters, **self._engine.naming)

    @property
    def prefilling(self) -> bool:
        """Whether the pass still has prompts to compute."""
        return bool(self._prompts)

    @property
    def running(self) -> bool:
        """Whether the pass has unfinished requests."""
        return bool(self._llm_engine.has_unfinished_requests())

    def abandon(self) -> None:
        """Abort the rest of the pass."""
        if self.running:
            self._llm_engine.abort_request(self._ids)
        while self.running:
            self._llm_engine.step()
        self._ids, self._prompts = [], {}

    def step(self, profiled: bool) -> Step | None:
        """Return the next step; None once the pass is over."""
        from torch.profiler import record_function

        while self.running:
            began_s = time.perf_counter()
            with record_function(WHOLE_STEP) if profiled else nullcontext():
                outputs = self._llm_engine.step()
            now_s = time.perf_counter()
            self._waited_s += now_s - began_s
            if not outputs:
                continue
            elapsed_s = now_s - self._last_s if self._apart else self._waited_s
            self._last_s, self._waited_s = now_s, 0.0
            begun = [
                self._prompts.pop(each.request_id) - (each.num_cached_tokens or 0)
                for each in outputs
                if each.request_id in self._prompts
            ]
            decoding = len(outputs) - len(begun)
            return Step(
                phase="mixed" if begun and decoding else "prefill" if begun else "decode",
                profiled=profiled,
                elapsed_s=elapsed_s,
                tokens=sum(begun) + decoding,
                sequences=len(outputs),
                context_tokens=sum(len(o.prompt_token_ids or ()) + len(o.outputs[0].token_ids) - 1 for o in outputs),
            )
        return None


class Windows:
    """Windows of steps of one phase.

    Args:
        following: follows the engine.
        passes: yields the requests of each pass.
    """

    def __init__(self, following: Following, passes: Iterator[list[Request]]) -> None:
        self._following = following
        self._passes = passes
        self._sooner = 0

    def steps(self, phase: Phase, count: int, profiled: LoadedEngine | None) -> list[Step]:
        """Return at most `count` steps of `phase`; if `profiled` is an engine, its profiler runs around them.

        Prefill steps are all steps that compute prompts, from as many passes as necessary. Decode steps are from the
        middle of a pass, where the KV cache has its average size.
        """
        taken = self._decode_steps(count, profiled) if phase == "decode" else self._prefill_steps(count, profiled)
        self._following.abandon()
        return taken

    def _prefill_steps(self, count: int, profiled: LoadedEngine | None) -> list[Step]:
        """Return `count` steps that compute prompts, of as many passes as that takes."""
        taken: list[Step] = []
        with _profiling(profiled):
            while len(taken) < count:
                self._following.begin(next(self._passes))
                while len(taken) < count and self._following.prefilling:
                    taken += self._next_step(profiled)
        return taken

    def _decode_steps(self, count: int, profiled: LoadedEngine | None) -> list[Step]:
        """Return decode steps; if texts end before the middle, a further pass with an earlier window is used."""
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
                taken += self._next_step(profiled)
        return taken

    def _come_to(self, asked: list[Request], before: int) -> bool:
        """Begin a pass and run it until `before` steps after its last prompt; return False if it ended earlier."""
        self._following.begin(asked)
        while self._following.prefilling:
            self._next_step(None)
        return all(self._next_step(None) for _ in range(1, before)) and self._following.running

    def _next_step(self, profiled: LoadedEngine | None) -> list[Step]:
        """Return a list with the next step; empty once the pass is over."""
        step = self._following.step(profiled is not None)
        return [] if step is None else [step]


@contextmanager
def _profiling(engine: LoadedEngine | None) -> Iterator[None]:
    if engine is None:
        yield
        return
    engine.llm.start_profile()
    try:
        yield
    finally:
        engine.llm.stop_profile()
