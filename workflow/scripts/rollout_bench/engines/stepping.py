"""Runs an engine whose core is in this process step by step, and says what each step computed."""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from rollout_bench.engines.vllm_offline import Engine
from rollout_bench.records.profile import Phase, Step
from rollout_bench.workloads.requests import Request

STEP_NAME = "rollout_bench_step"
"""How a step is marked in the trace, from scheduling to handing back; vLLM marks the model's part alone."""


@dataclass(frozen=True)
class Batch:
    """What one step computed."""

    prefill: int
    decode: int
    tokens: int
    context_tokens: int

    @property
    def phase(self) -> Phase:
        """prefill, decode, or mixed."""
        return "mixed" if self.prefill and self.decode else "prefill" if self.prefill else "decode"


class Stepping:
    """Steps through passes of a workload.

    Args:
        engine: a loaded engine whose core is in this process.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._llm_engine: Any = engine.llm.llm_engine
        self._core: Any = self._llm_engine.engine_core.engine_core
        self._scheduler: Any = self._core.scheduler
        self._batches: list[Batch] = []
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
        """Hands over the requests of a pass, one for each sequence, to an engine with an empty prefix cache."""
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
        """Whether prompts of the pass are still to be computed."""
        return any(r.num_computed_tokens < r.num_prompt_tokens for r in self._scheduler.requests.values())

    @property
    def running(self) -> bool:
        """Whether something of the pass is left."""
        return bool(self._llm_engine.has_unfinished_requests())

    def abandon(self) -> None:
        """Ends what is left of the pass."""
        if self._llm_engine.has_unfinished_requests():
            self._llm_engine.abort_request(self._ids)
        while self._llm_engine.has_unfinished_requests() or self._core.batch_queue:
            self._llm_engine.step()  # with asynchronous scheduling a batch may still be under way
        self._ids = []

    def step(self, profiled: bool) -> Step | None:
        """The next step; None once the pass is over.

        With asynchronous scheduling the engine's first call only hands a batch to the device: its time counts for the
        step that it began.
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

    def _batch(self, scheduled: Any) -> Batch:
        computed = {new.req_id: new.num_computed_tokens for new in scheduled.scheduled_new_reqs}
        cached = scheduled.scheduled_cached_reqs
        computed.update(zip(cached.req_ids, cached.num_computed_tokens, strict=True))
        prefill = decode = context = 0
        for name, tokens in scheduled.num_scheduled_tokens.items():
            before = computed.get(name, 0)
            context += before + tokens
            request = self._scheduler.requests.get(name)  # none where it was abandoned while its batch was under way
            if request is not None and before < request.num_prompt_tokens:
                prefill += 1
            else:
                decode += 1
        return Batch(prefill, decode, scheduled.total_num_scheduled_tokens, context)
