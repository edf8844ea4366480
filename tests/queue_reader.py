"""The reader's end of a queue of vLLM's, in a process of its own: `serve` says what it got and when."""

from __future__ import annotations

from multiprocessing.connection import Connection
from typing import Any


def serve(handle: Any, count: int, pipe: Connection) -> None:
    """Get `count` messages out of the queue `handle`; send the lengths of what they hold, and what was noted."""
    from rollout_bench.measure.probes.message_probes import NotedQueue

    queue = NotedQueue.create_from_handle(handle, 0)
    queue.wait_until_ready()
    first = queue.dequeue(timeout=120)  # before the pass: counted, and not noted
    queue.ending.begin("times", count)
    got = [queue.dequeue(timeout=120) for _ in range(count)]
    pipe.send(([first, *map(len, got)], queue.ending.end()))
    pipe.recv()
