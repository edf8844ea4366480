"""Records the messages of vLLM's multiprocess engine, inside its core and its workers.

Where vLLM has extension points, they are used: an executor class of ours, a scheduler class derived from vLLM's choice,
and a worker extension that receives the start of a pass. Elsewhere a name in a vLLM module is bound to a derived class:
`MessageQueue` in the executor's module, `MsgpackEncoder` and `MsgpackDecoder` in the core's module.
`core.message_places` lists these requirements, and they are checked before planning.

The engine's processes import this module by name.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from statistics import median
from typing import Any

from vllm.distributed.device_communicators.shm_broadcast import MessageQueue
from vllm.v1.executor import multiproc_executor
from vllm.v1.serial_utils import MsgpackDecoder, MsgpackEncoder

from rollout_bench.contracts.messages import Look
from rollout_bench.measure.probes.census import WeightCensus
from rollout_bench.measure.probes.message_notes import (
    BEGIN,
    CORE_FILE,
    END,
    HERE,
    WORKER_FILES,
    AwaitedSocket,
    CopyingSocket,
    NotedDecoding,
    NotedEncoding,
    NotedRing,
    costs,
    now,
    timed,
)


class NotedQueue(NotedRing, MessageQueue):  # type: ignore[misc]
    """A queue between core and workers that records its messages."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ending = HERE.ending(self.handle.buffer_handle[3], writes=True)
        self.local_socket: Any = CopyingSocket(self.local_socket, self.ending)

    @staticmethod
    def create_from_handle(handle: Any, rank: int) -> Any:
        """Return the reader's end of a queue."""
        queue = MessageQueue.create_from_handle(handle, rank)
        queue.__class__ = NotedQueue
        queue.ending = HERE.ending(handle.buffer_handle[3], writes=False)
        queue.local_socket = AwaitedSocket(queue.local_socket, queue.ending)
        return queue


multiproc_executor.MessageQueue = NotedQueue  # before the executor makes its queue and a worker opens it


class MessageLooks(WeightCensus):
    """Worker extension of vLLM with the methods that begin and end a pass."""

    def rollout_bench_begin_messages(self, look: Look, capacity: int) -> None:
        """Begin a pass of at most `capacity` messages."""
        HERE.begin(look, capacity)

    def rollout_bench_end_messages(self, folder: str) -> None:
        """End a pass, and write the records to `folder`."""
        HERE.end(Path(folder) / WORKER_FILES.format(rank=self.rank), rank=self.rank)  # type: ignore[attr-defined]


class CoreSteps:
    """The core's current step, and the start and end of its steps."""

    def __init__(self) -> None:
        self.current: int | None = None
        self._scheduled: list[Any] = []
        self._moments: list[list[int]] = []
        self._of_schedule: dict[int, int] = {}
        self._of_outputs: dict[int, int] = {}
        self._noting = False

    def begin(self) -> None:
        """Start counting steps from 0."""
        self.__init__()  # type: ignore[misc]
        self._noting = True

    def scheduled(self, scheduled: Any, began: int) -> None:
        """Record a scheduled step; schedules without tokens are ignored."""
        self.current = None
        if self._noting and scheduled.total_num_scheduled_tokens:
            self.current = self._of_schedule[id(scheduled)] = len(self._scheduled)
            self._scheduled.append(scheduled)
            self._moments.append([began, 0])

    def updated(self, scheduled: Any, outputs: dict[int, Any]) -> None:
        """Record the end of a step, and its `outputs`."""
        step = self._of_schedule.pop(id(scheduled), None)
        if step is not None:
            self._moments[step][1] = now()
            for each in outputs.values():
                self._of_outputs[id(each)] = step

    def step_of_outputs(self, outputs: Any) -> int | None:
        """Return the step of `outputs`; None if they belong to no step."""
        return self._of_outputs.pop(id(outputs), None)

    def end(self) -> list[dict[str, Any]]:
        """Return the steps: start and end in nanoseconds, and their scheduled contents."""
        self._noting = False
        steps = [
            {"began": began, "ended": ended, **described(scheduled)}
            for scheduled, (began, ended) in zip(self._scheduled, self._moments, strict=True)
        ]
        self._scheduled, self._moments = [], []
        return steps


def described(scheduled: Any) -> dict[str, Any]:
    """Return the contents of a `SchedulerOutput`: tokens, sequences, new requests, and sequences in prefill."""
    new, cached = scheduled.scheduled_new_reqs, scheduled.scheduled_cached_reqs
    return {
        "tokens": scheduled.total_num_scheduled_tokens,
        "sequences": len(scheduled.num_scheduled_tokens),
        "new_requests": len(new),
        "new_prompt_tokens": sum(len(request.prompt_token_ids or ()) for request in new),
        "requests": [request.req_id for request in new],
        "prefill": len(new) + sum(count == 0 for count in cached.num_output_tokens),
    }


STEPS = CoreSteps()
"""The steps of this process, if it is the core."""


def noting(scheduler: type[Any]) -> type[Any]:
    """Return a class derived from `scheduler` that records its steps."""

    class NotedScheduler(scheduler):  # type: ignore[misc]
        def schedule(self, *args: Any, **kwargs: Any) -> Any:
            began = now()
            scheduled = super().schedule(*args, **kwargs)
            STEPS.scheduled(scheduled, began)
            return scheduled

        def update_from_output(self, scheduled: Any, *args: Any, **kwargs: Any) -> Any:
            outputs = super().update_from_output(scheduled, *args, **kwargs)
            STEPS.updated(scheduled, outputs)
            return outputs

    return NotedScheduler


class CoreEncoder(NotedEncoding, MsgpackEncoder):  # type: ignore[misc]
    """Encodes messages from the core to the front end."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ending = HERE.ending("core_to_front_end", writes=True)

    def tag(self, outputs: Any) -> Any:
        """Return the creation time of `outputs`, which both ends see, and their step."""
        return outputs.timestamp, STEPS.step_of_outputs(outputs)


class CoreDecoder(NotedDecoding, MsgpackDecoder):  # type: ignore[misc]
    """Decodes messages from the front end to the core."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ending = HERE.ending("front_end_to_core", writes=False)

    def tag(self, request: Any) -> Any:
        """Return the id of a request; None for other messages."""
        return getattr(request, "request_id", None)


class MessagesExecutor(multiproc_executor.MultiprocExecutor):  # type: ignore[misc]
    """vLLM's own multiprocess executor, with recorded messages."""

    def _init_executor(self) -> None:
        from vllm.v1.engine import core

        core.MsgpackEncoder, core.MsgpackDecoder = CoreEncoder, CoreDecoder  # the threads that use them start later
        super()._init_executor()
        HERE.tag = lambda message: (message[0], message[3], STEPS.current)
        # Workers have the config already; the scheduler is made after the executor.
        config = self.vllm_config.scheduler_config
        config.scheduler_cls = noting(config.get_scheduler_cls())

    def collective_rpc(
        self, method: Any, timeout: float | None = None, args: tuple[Any, ...] = (), *more: Any, **named: Any
    ) -> Any:
        """Call vLLM's method; recording begins before the workers are called, and ends after they have answered."""
        if method == BEGIN:
            HERE.begin(args[0], args[1])
            STEPS.begin()
        answer = super().collective_rpc(method, timeout, args, *more, **named)
        if method == END:
            steps = STEPS.end()
            HERE.end(
                Path(args[0]) / CORE_FILE,
                steps=steps,
                ring_bytes=self.rpc_broadcast_mq.buffer.max_chunk_bytes,
                async_scheduling=bool(self.vllm_config.scheduler_config.async_scheduling),
            )
        return answer


class FrontEndEncoder(NotedEncoding, MsgpackEncoder):  # type: ignore[misc]
    """Encodes messages from the front end to the core."""

    def tag(self, request: Any) -> Any:
        """Return the id of a request; None for other messages."""
        return getattr(request, "request_id", None)


class FrontEndDecoder(NotedDecoding, MsgpackDecoder):  # type: ignore[misc]
    """Decodes messages from the core to the front end."""

    def tag(self, outputs: Any) -> Any:
        """Return the creation time of `outputs`, which both ends see."""
        return outputs.timestamp


def note_front_end(client: Any) -> None:
    """Record the messages between this process and its engine core.

    Args:
        client: vLLM's client of the core, from an `LLM`.
    """
    client.encoder.__class__ = FrontEndEncoder
    client.encoder.ending = HERE.ending("front_end_to_core", writes=True)
    client.decoder.__class__ = FrontEndDecoder
    client.decoder.ending = HERE.ending("core_to_front_end", writes=False)


def probe_costs() -> dict[str, float]:
    """Return the time that each probe adds to a call, in seconds: `message_notes.costs`, and step_s."""

    class Scheduled:
        total_num_scheduled_tokens = 1

    class Bare:
        def schedule(self) -> Any:
            return Scheduled()

        def update_from_output(self, scheduled: Any) -> dict[int, Any]:
            return {0: scheduled}

    def step(scheduler: Any) -> None:
        scheduler.update_from_output(scheduler.schedule())

    bare, noted = Bare(), noting(Bare)()
    added = []
    for _ in range(9):
        STEPS.begin()
        added.append(timed(lambda _: step(noted), 2000) - timed(lambda _: step(bare), 2000))
    return {**costs(), "step_s": max(median(added), 0.0)}


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
