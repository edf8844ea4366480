"""Follows an engine whose core is a process of its own, step by step: from what it hands back."""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from typing import Any

from rollout_bench.engines.vllm_offline import Engine
from rollout_bench.records.profile import Step
from rollout_bench.workloads.requests import Request


class Following:
    """As `Stepping`, for a core that goes on by itself: a step lasts from one answer of the core to the next.

    What the core computes is told from whose tokens come back: a step that ends no prompt and gives no token is not
    seen, and the step that ends a prompt counts for all of it that was in no cache. The core is a few steps ahead where
    answers wait to be read.

    Args:
        engine: a loaded engine whose core is a process of its own.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._llm_engine: Any = engine.llm.llm_engine
        self._passes = 0
        self._ids: list[str] = []
        self._prompts: dict[str, int] = {}
        self._last_s = 0.0

    def begin(self, asked: Sequence[Request]) -> None:
        """Hands over the requests of a pass, one for each sequence, to an engine with an empty prefix cache."""
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
        """Whether prompts of the pass are still to be computed."""
        return bool(self._prompts)

    @property
    def running(self) -> bool:
        """Whether something of the pass is left."""
        return bool(self._llm_engine.has_unfinished_requests())

    def abandon(self) -> None:
        """Ends what is left of the pass."""
        if self._llm_engine.has_unfinished_requests():
            self._llm_engine.abort_request(self._ids)
        while self._llm_engine.has_unfinished_requests():
            self._llm_engine.step()
        self._ids, self._prompts = [], {}

    def step(self, profiled: bool) -> Step | None:
        """The next step; None once the pass is over."""
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
