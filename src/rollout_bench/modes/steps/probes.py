"""Notes the steps of vLLM's engine core: the work that its scheduler puts into each, and when each is over.

The scheduler is a class derived from vLLM's choice, named by vLLM's own `scheduler_cls`. It lives in the process of the
core, which may be another than the caller's: the steps come through a file.
"""

import json
import os
from time import monotonic_ns
from typing import Any

from rollout_bench.contracts.steps import StepWork, work_of

PLACE = "ROLLOUT_BENCH_STEPS"
"""Environment variable with the file for steps."""

SCHEDULER = f"{__name__}.noted_scheduler"
"""vLLM's `scheduler_cls`."""


def noted_scheduler(vllm_config: Any, **rest: Any) -> Any:
    """Return the scheduler that vLLM would make, which also notes its steps in the file `PLACE` names."""
    from vllm.v1.core.sched.async_scheduler import AsyncScheduler
    from vllm.v1.core.sched.scheduler import Scheduler

    chosen: type[Any] = AsyncScheduler if vllm_config.scheduler_config.async_scheduling else Scheduler
    return noting(chosen, os.environ[PLACE])(vllm_config=vllm_config, **rest)


def noting(scheduler: type[Any], path: str) -> type[Any]:
    """Return a class derived from `scheduler` that appends a line to `path` whenever all its requests are over."""

    class NotedScheduler(scheduler):  # type: ignore[misc]
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.noted: list[dict[str, int]] = []
            self.scheduled: dict[int, tuple[int, dict[str, int]]] = {}
            self.ended_ns = 0
            self.pool = self.kv_cache_manager.block_pool
            self.empty = self.pool.get_num_free_blocks()

        def schedule(self, *args: Any, **kwargs: Any) -> Any:
            began_ns = monotonic_ns()
            output = super().schedule(*args, **kwargs)
            if output.total_num_scheduled_tokens:
                kv_tokens = (self.empty - self.pool.get_num_free_blocks()) * self.block_size
                self.scheduled[id(output)] = (began_ns, described(output, self.requests, kv_tokens))
            return output

        def update_from_output(self, output: Any, *args: Any, **kwargs: Any) -> Any:
            outputs = super().update_from_output(output, *args, **kwargs)
            began_ns, work = self.scheduled.pop(id(output), (0, None))
            if work is not None:
                ended_ns = monotonic_ns()
                self.noted.append({**work, "elapsed_ns": ended_ns - (self.ended_ns or began_ns)})
                self.ended_ns = ended_ns
            if not self.requests and self.noted:
                with open(path, "a") as file:  # noqa: PTH123 (in the engine's core, at the end of a pass)
                    file.write(json.dumps(self.noted) + "\n")
                self.noted.clear()
                self.ended_ns = 0
            return outputs

    return NotedScheduler


def described(output: Any, requests: Any, kv_tokens: int) -> dict[str, int]:
    """Return the work of a `SchedulerOutput`, as the fields of `contracts.steps.StepWork`.

    Args:
        output: what was scheduled.
        requests: the scheduler's requests by their ids, whose computed tokens already include this step's.
        kv_tokens: room of the KV cache that they hold.
    """
    counts = output.num_scheduled_tokens
    if output.scheduled_new_reqs or output.total_num_scheduled_tokens != len(counts):
        return work_of(((requests[name], count) for name, count in counts.items()), kv_tokens)
    # All decode. This is the frequent case, and must be quick.
    context = sum(output.scheduled_cached_reqs.num_computed_tokens) + len(counts)
    decoding = {"decodes": len(counts), "context_tokens": context, "kv_tokens": kv_tokens}
    return {**dict.fromkeys(StepWork.model_fields, 0), **decoding}
