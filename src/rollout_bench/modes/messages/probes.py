"""Notes the steps of vLLM's engine core, and in a pass for contents the two messages of each step.

vLLM's extension points are used: an executor class of ours, and a scheduler class derived from vLLM's choice. A
scheduler makes the message to the workers and receives their answer, so nothing between the processes is touched.
`vllm_symbols` lists the requirements, and they are checked before planning.
"""

import pickle
from pathlib import Path
from statistics import median
from time import monotonic_ns
from typing import Any

from vllm.v1.executor import multiproc_executor

from rollout_bench.modes.messages.contents import Wire
from rollout_bench.modes.messages.record import Purpose

BEGIN, END = "rollout_bench_begin_messages", "rollout_bench_end_messages"
"""Calls to the executor when a pass begins and ends; no worker sees them."""

BROADCAST = "rollout_bench_broadcast"
"""Call to the executor that times broadcasts among its workers."""

BROADCASTS = 11
"""Number of broadcasts of a size; the first does not count."""


def pickled(message: Any) -> Wire:
    """Return `message` as vLLM's queue sends it: protocol 5, with buffers apart."""
    buffers: list[pickle.PickleBuffer] = []
    made = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL, buffer_callback=buffers.append)
    return (made, *(bytes(buffer.raw()) for buffer in buffers))


class CoreSteps:
    """The steps of a pass, in the process of the engine core."""

    def __init__(self) -> None:
        self._purpose: Purpose | None = None
        self._steps: list[dict[str, Any]] = []
        self._of_schedule: dict[int, int] = {}

    def begin(self, purpose: Purpose) -> None:
        """Start noting steps from 0."""
        self._purpose, self._steps, self._of_schedule = purpose, [], {}

    def scheduled(self, scheduled: Any, began_ns: int) -> None:
        """Note a scheduled step; schedules without tokens are ignored."""
        if self._purpose is None or not scheduled.total_num_scheduled_tokens:
            return
        step = {"began_ns": began_ns, "scheduled": scheduled}
        if self._purpose == "contents":
            step["to_workers"] = pickled(scheduled)
        self._of_schedule[id(scheduled)] = len(self._steps)
        self._steps.append(step)

    def answered(self, scheduled: Any, answer: Any) -> int | None:
        """Note the answer to a step, and return its number; None if the step is not noted."""
        number = self._of_schedule.pop(id(scheduled), None)
        if number is not None and self._purpose == "contents":
            self._steps[number]["to_core"] = pickled(answer)
        return number

    def ended(self, number: int | None) -> None:
        """Note that the scheduler has processed the answer to a step."""
        if number is not None:
            self._steps[number]["ended_ns"] = monotonic_ns()

    def end(self) -> list[dict[str, Any]]:
        """Stop noting, and return the steps: their beginnings and ends, what was scheduled, and their messages."""
        self._purpose = None
        return [step | described(step.pop("scheduled")) for step in self._steps]


def described(scheduled: Any) -> dict[str, int]:
    """Return the contents of a `SchedulerOutput`: tokens, sequences, new requests, and sequences in prefill."""
    new, cached = scheduled.scheduled_new_reqs, scheduled.scheduled_cached_reqs
    return {
        "tokens": scheduled.total_num_scheduled_tokens,
        "sequences": len(scheduled.num_scheduled_tokens),
        "new_requests": len(new),
        "new_prompt_tokens": sum(len(request.prompt_token_ids or ()) for request in new),
        "prefill": len(new) + sum(count == 0 for count in cached.num_output_tokens),
    }


STEPS = CoreSteps()
"""The steps of this process, if it is the core."""


def with_step_notes(scheduler: type[Any]) -> type[Any]:
    """Return a class derived from `scheduler` that notes its steps."""

    class NotedScheduler(scheduler):  # type: ignore[misc]
        def schedule(self, *args: Any, **kwargs: Any) -> Any:
            began_ns = monotonic_ns()
            scheduled = super().schedule(*args, **kwargs)
            STEPS.scheduled(scheduled, began_ns)
            return scheduled

        def update_from_output(self, scheduled: Any, answer: Any, *args: Any, **kwargs: Any) -> Any:
            number = STEPS.answered(scheduled, answer)
            outputs = super().update_from_output(scheduled, answer, *args, **kwargs)
            STEPS.ended(number)
            return outputs

    return NotedScheduler


class MessagesExecutor(multiproc_executor.MultiprocExecutor):  # type: ignore[misc]
    """vLLM's own multiprocess executor, whose scheduler notes its steps."""

    def _init_executor(self) -> None:
        super()._init_executor()
        # Workers have the config already; the scheduler is made after the executor.
        config = self.vllm_config.scheduler_config
        config.scheduler_cls = with_step_notes(config.get_scheduler_cls())

    def collective_rpc(
        self, method: Any, timeout: float | None = None, args: tuple[Any, ...] = (), *more: Any, **named: Any
    ) -> Any:
        """Call vLLM's method; `BEGIN` and `END` begin and end a pass, whose steps are written to a file.

        `BROADCAST` returns the times of broadcasts, as the slowest worker saw them.
        """
        if method == BROADCAST:
            return [max(seen) for seen in zip(*super().collective_rpc(broadcast_s, timeout, args), strict=True)]
        if method == BEGIN:
            STEPS.begin(*args)
            return []
        if method == END:
            steps = {
                "steps": STEPS.end(),
                "async_scheduling": bool(self.vllm_config.scheduler_config.async_scheduling),
            }
            Path(*args).write_bytes(pickle.dumps(steps))
            return []
        return super().collective_rpc(method, timeout, args, *more, **named)


def broadcast_s(worker: Any, sizes: list[int]) -> list[float]:
    """Return the time of a broadcast of each number of bytes from the first worker to all, as medians in seconds.

    All workers call this. The group is vLLM's: gloo on a CPU, NCCL on GPUs.
    """
    import torch.distributed as dist
    from torch import uint8, zeros
    from vllm.distributed.parallel_state import get_world_group

    group, medians_s = get_world_group(), []
    for size in sizes:
        content, times = zeros(size, dtype=uint8, device=group.device), []
        for _ in range(BROADCASTS):
            dist.barrier(group=group.cpu_group)
            began_ns = monotonic_ns()
            dist.broadcast(content, src=group.ranks[0], group=group.device_group)
            content[-1].item()  # waits for the device
            times.append((monotonic_ns() - began_ns) / 1e9)
        medians_s.append(median(times[1:]))
    return medians_s


def pickled_bytes() -> dict[str, int]:
    """Return the size in bytes of single objects in messages, pickled as in a queue."""
    from vllm import SamplingParams
    from vllm.v1.core.sched.output import CachedRequestData, SchedulerOutput
    from vllm.v1.outputs import EMPTY_MODEL_RUNNER_OUTPUT

    named = {
        "SamplingParams": SamplingParams(),
        "CachedRequestData": CachedRequestData.make_empty(),
        "SchedulerOutput": SchedulerOutput.make_empty(),
        "ModelRunnerOutput": EMPTY_MODEL_RUNNER_OUTPUT,
    }
    return {name: len(pickle.dumps(each, protocol=pickle.HIGHEST_PROTOCOL)) for name, each in named.items()}
