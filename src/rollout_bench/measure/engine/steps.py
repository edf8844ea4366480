"""Runs an engine step by step, or follows a core in another process, and selects steps to measure."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from rollout_bench.contracts.inside import Phase, Step
from rollout_bench.measure.engine.vllm import LoadedEngine
from rollout_bench.workloads.requests import Request

STEP_NAME = "rollout_bench_step"
"""Mark of a step in the trace, from scheduling to returned outputs; vLLM only marks the model's part."""


@dataclass(frozen=True)
class StepBatch:
    """Contents of one step."""

    prefill: int
    decode: int
    tokens: int
    context_tokens: int

    @property
    def phase(self) -> Phase:
        """Phase of the step: prefill, decode, or mixed."""
        return "mixed" if self.prefill and self.decode else "prefill" if self.prefill else "decode"


class Stepping:
    """Runs passes of a workload step by step.

    Args:
        engine: a loaded engine whose core is in this process.
    """

    def __init__(self, engine: LoadedEngine) -> None:
        self._engine = engine
        self._llm_engine: Any = engine.llm.llm_engine
        self._core: Any = self._llm_engine.engine_core.engine_core
        self._scheduler: Any = self._core.scheduler
        self._batches: list[StepBatch] = []
        self._ids: list[str] = []
        self._passes = 0
        self._waited_s = 0.0
        update = self._scheduler.update_from_output

        def noted(scheduled: Any, *args: Any, **kwargs: Any) -> Any:
            if scheduled.total_num_scheduled_tokens:
                self._batches.append(self._batch(scheduled))
            return update(scheduled, *args, **kwargs)

        self._scheduler.update_from_output = noted

    def begin(self, asked: Sequence[Request]) -> None:
        """Submit the requests of a pass, one for each sequence, after clearing the engine's prefix cache."""
        self.abandon()
        self._engine.reset_prefix_cache()
        self._passes += 1
        sampling = self._engine.sampling_of([request.output_tokens for request in asked], single=True)
        each = sampling if isinstance(sampling, list) else [sampling] * len(asked)
        for number, (request, parameters) in enumerate(zip(asked, each, strict=True)):
            name = f"pass-{self._passes}-{number}"
            self._ids.append(name)
            self._llm_engine.add_request(name, {"prompt_token_ids": request.prompt_token_ids}, parameters)
        gc.collect()
        self._waited_s = 0.0

    @property
    def prefilling(self) -> bool:
        """Whether the pass still has prompts to compute."""
        return any(r.num_computed_tokens < r.num_prompt_tokens for r in self._scheduler.requests.values())

    @property
    def running(self) -> bool:
        """Whether the pass has unfinished requests."""
        return bool(self._llm_engine.has_unfinished_requests())

    def abandon(self) -> None:
        """Abort the rest of the pass."""
        if self._llm_engine.has_unfinished_requests():
            self._llm_engine.abort_request(self._ids)
        while self._llm_engine.has_unfinished_requests() or self._core.batch_queue:
            self._llm_engine.step()  # with asynchronous scheduling a batch may still be running
        self._ids = []

    def step(self, profiled: bool) -> Step | None:
        """Return the next step; None once the pass is over.

        With asynchronous scheduling the engine's first call only submits a batch to the device; its time is added to
        the step that it began.
        """
        from torch.profiler import record_function

        while self._llm_engine.has_unfinished_requests():
            self._batches.clear()
            began = time.perf_counter()
            with record_function(STEP_NAME) if profiled else nullcontext():
                self._llm_engine.step()
            self._waited_s += time.perf_counter() - began
            if self._batches:
                batch, elapsed_s = self._batches[0], self._waited_s
                self._waited_s = 0.0
                return Step(
                    phase=batch.phase,
                    profiled=profiled,
                    elapsed_s=elapsed_s,
                    tokens=batch.tokens,
                    sequences=batch.prefill + batch.decode,
                    context_tokens=batch.context_tokens,
                )
        return None

    def _batch(self, scheduled: Any) -> StepBatch:
        computed = {new.req_id: new.num_computed_tokens for new in scheduled.scheduled_new_reqs}
        cached = scheduled.scheduled_cached_reqs
        computed.update(zip(cached.req_ids, cached.num_computed_tokens, strict=True))
        prefill = decode = context = 0
        for name, tokens in scheduled.num_scheduled_tokens.items():
            before = computed.get(name, 0)
            context += before + tokens
            request = self._scheduler.requests.get(name)  # None if it was aborted while its batch was running
            if request is not None and before < request.num_prompt_tokens:
                prefill += 1
            else:
                decode += 1
        return StepBatch(prefill, decode, scheduled.total_num_scheduled_tokens, context)


class Following:
    """Like `Stepping`, for a core in another process: a step lasts from one answer of the core to the next.

    The computed work is inferred from the returned tokens. A step that ends no prompt and returns no token is not seen.
    The step that ends a prompt counts all its uncached tokens. The core may be a few steps ahead of the answers.

    Args:
        engine: a loaded engine whose core is in a separate process.
    """

    def __init__(self, engine: LoadedEngine) -> None:
        self._engine = engine
        self._llm_engine: Any = engine.llm.llm_engine
        self._passes = 0
        self._ids: list[str] = []
        self._prompts: dict[str, int] = {}
        self._last_s = 0.0

    def begin(self, asked: Sequence[Request]) -> None:
        """Submit the requests of a pass, one for each sequence, after clearing the engine's prefix cache."""
        self.abandon()
        self._engine.reset_prefix_cache()
        self._passes += 1
        gc.collect()
        sampling = self._engine.sampling_of([request.output_tokens for request in asked], single=True)
        each = sampling if isinstance(sampling, list) else [sampling] * len(asked)
        self._last_s = time.perf_counter()
        for number, (request, parameters) in enumerate(zip(asked, each, strict=True)):
            name = f"pass-{self._passes}-{number}"
            self._ids.append(name)
            self._prompts[name] = len(request.prompt_token_ids)
            self._llm_engine.add_request(name, {"prompt_token_ids": request.prompt_token_ids}, parameters)

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
        if self._llm_engine.has_unfinished_requests():
            self._llm_engine.abort_request(self._ids)
        while self._llm_engine.has_unfinished_requests():
            self._llm_engine.step()
        self._ids, self._prompts = [], {}

    def step(self, profiled: bool) -> Step | None:
        """Return the next step; None once the pass is over."""
        while self._llm_engine.has_unfinished_requests():
            outputs = self._llm_engine.step()
            if not outputs:
                continue
            now_s = time.perf_counter()
            elapsed_s, self._last_s = now_s - self._last_s, now_s
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
        stepping: runs or follows the engine.
        passes: yields the requests of each pass.
    """

    def __init__(self, stepping: Stepping | Following, passes: Iterator[list[Request]]) -> None:
        self._stepping = stepping
        self._passes = passes
        self._sooner = 0

    def steps(self, phase: Phase, count: int, profiled: LoadedEngine | None) -> list[Step]:
        """Return at most `count` steps of `phase`; if `profiled` is an engine, its profiler runs around them.

        Prefill steps are all steps that compute prompts, from as many passes as necessary. Decode steps are from the
        middle of a pass, where the KV cache has its average size.
        """
        taken = self._decode(count, profiled) if phase == "decode" else self._prefill(count, profiled)
        self._stepping.abandon()
        return taken

    def _prefill(self, count: int, profiled: LoadedEngine | None) -> list[Step]:
        taken: list[Step] = []
        with _profiling(profiled):
            while len(taken) < count:
                self._stepping.begin(next(self._passes))
                while len(taken) < count and self._stepping.prefilling:
                    taken += self._next(profiled)
        return taken

    def _decode(self, count: int, profiled: LoadedEngine | None) -> list[Step]:
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
                taken += self._next(profiled)
        return taken

    def _come_to(self, asked: list[Request], before: int) -> bool:
        """Begin a pass and run it until `before` steps after its last prompt; return False if it ended earlier."""
        self._stepping.begin(asked)
        while self._stepping.prefilling:
            self._next(None)
        return all(self._next(None) for _ in range(1, before)) and self._stepping.running

    def _next(self, profiled: LoadedEngine | None) -> list[Step]:
        """Return a list with the next step; empty once the pass is over."""
        step = self._stepping.step(profiled is not None)
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
