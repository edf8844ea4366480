"""The record of a startup launch."""

import time
from typing import Any

from rollout_bench.contracts.record import EngineFacts, Flag
from rollout_bench.measure.launch.protocol import Event, IterationBegins
from rollout_bench.measure.launch.recorder import CollectorContext, Measurement
from rollout_bench.modes.startup.events import StartObserved
from rollout_bench.modes.startup.phases import StartSpan, cache_flags, phases_between
from rollout_bench.modes.startup.record import StartCourse
from rollout_bench.modes.startup.settings import StartupSpec
from rollout_bench.modes.startup.weight_files import read_weights


class Collector(Measurement):
    """Collects the times of a start."""

    def __init__(self, given: CollectorContext) -> None:
        self._weights_bytes = read_weights(given.spec, given.model)
        super().__init__(given)
        self._seen: StartObserved | None = None

    def take(self, event: Event) -> None:
        """Process one event."""
        received = time.monotonic()
        super().take(event)
        if isinstance(event, IterationBegins):
            self.begin_later(time.monotonic() - received)  # the engine waits while host and devices are read
        elif isinstance(event, StartObserved):
            self._seen = event

    def launched(self, log: str) -> dict[str, Any]:
        """Return the fields that all records share, with the phases of the start."""
        fields = super().launched(log)
        return fields | {"startup": fields["startup"].model_copy(update={"course": self._course()})}

    def doubts(self, facts: EngineFacts, log: str) -> list[Flag]:
        return [*super().doubts(facts, log), *cache_flags(self.spec.of(StartupSpec).caches, self._course())]

    def _course(self) -> StartCourse:
        seen = self._seen
        assert seen is not None, "the engine was done before it had told of its start"
        process = StartSpan("process", self.began, seen.imports)
        began = self.began if seen.began is None else seen.began
        phases, rest_s = phases_between([process, *seen.spans], began, seen.token)
        return StartCourse(
            phases=phases,
            rest_s=rest_s,
            until_token_s=seen.token - began,
            after_s=None if seen.began is None else max(0.0, began - self.began),
            weights_bytes=self._weights_bytes,
            cache_files=seen.cache_files,
        )
