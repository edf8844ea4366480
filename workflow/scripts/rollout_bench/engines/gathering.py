"""Makes one stream of events of those of several replicas: each event once all of them have told theirs.

All replicas run the same program, so the n-th event of one belongs to the n-th of every other, in whatever order
they come. That all have said `IterationBegins` is the barrier before a pass.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from rollout_bench.engines.events import Event, IterationDone, Ready
from rollout_bench.engines.together import done_together, ready_together
from rollout_bench.plan.spec import Platform


class Gathering:
    """Gathers the events of so many `replicas` on `platform`."""

    def __init__(self, replicas: int, platform: Platform) -> None:
        self._platform = platform
        self._told: list[deque[Event]] = [deque() for _ in range(replicas)]

    def take(self, replica: int, event: Event) -> list[Event]:
        """Takes the next event of `replica`; the events that are complete with it, in order.

        Raises:
            RuntimeError: replicas told of different things.
        """
        self._told[replica].append(event)
        complete = []
        while all(self._told):
            complete.append(_as_one([told.popleft() for told in self._told], self._platform))
        return complete

    def behind(self) -> list[int]:
        """The replicas that the others wait for; all of them where nobody waits."""
        fewest = min(len(told) for told in self._told)
        return [number for number, told in enumerate(self._told) if len(told) == fewest]


def _as_one(events: Sequence[Event], platform: Platform) -> Event:
    if len(events) == 1:
        return events[0]
    if len({type(event) for event in events}) > 1:
        raise RuntimeError(f"replicas told of different things: {', '.join(event.event for event in events)}")
    if passes := [event for event in events if isinstance(event, IterationDone)]:
        return done_together(passes)
    if readies := [event for event in events if isinstance(event, Ready)]:
        return ready_together(readies, platform)
    return events[0]
