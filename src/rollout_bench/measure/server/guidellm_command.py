"""guidellm's command, which reads what has come of requests to the last, and may go through its data set again.

In guidellm 0.8.1 the loop that reads it ends where nothing came for 0.1 s and an event is set. The event is set before
the last update is handed to the loop: where threads are held up, this update is lost, or all that wait.

Its worker processes import this module too. Without anyio, which httpx else imports as it connects, the first request
of each would leave 50 to 90 ms late.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio._backends._asyncio  # noqa: F401

AGAIN = "ROLLOUT_BENCH_ROWS_AGAIN"
"""Variable of the command's environment under which its data set begins again after its end."""


def main() -> None:
    """Run it, with the arguments of this process."""
    from guidellm.cli import cli
    from guidellm.data.loaders import torch
    from guidellm.scheduler import worker_group

    groups: Any = worker_group.WorkerProcessGroup
    data_sets: Any = torch.DatasetsIterator
    until_told_to_end, once = groups.request_updates, data_sets.__iter__

    async def to_the_last(group: Any) -> AsyncIterator[Any]:
        async for update in until_told_to_end(group):
            yield update
        await group.messaging.receive_task
        received = group.messaging.buffer_receive_queue
        while received.qsize():
            yield received.get_nowait()

    def again(data_set: Any) -> Iterator[Any]:
        while True:
            yield from once(data_set)

    groups.request_updates = to_the_last
    if AGAIN in os.environ:
        data_sets.__iter__ = again
    cli()


if __name__ == "__main__":
    main()
