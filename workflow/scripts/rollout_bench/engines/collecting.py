"""What of a launch is collected in every mode: its start, its facts, its time."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Any

from rollout_bench.engines.events import Done, Event, IterationBegins, IterationEnds, PhaseBegins, Ready
from rollout_bench.engines.interference import neighbour_flags
from rollout_bench.engines.log_reader import read_log
from rollout_bench.engines.progress import Progress
from rollout_bench.engines.read_ahead import ReadAhead
from rollout_bench.engines.surroundings import Surroundings
from rollout_bench.plan.spec import Spec
from rollout_bench.records.placement import Placement
from rollout_bench.records.record import SCHEMA_VERSION, EngineFacts, Flag
from rollout_bench.records.startup import Startup


def clock() -> str:
    """Now in UTC, ISO 8601."""
    return time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())


class Collecting:
    """Collects what the engine process delivers, whatever the mode; what the mode measures, its own class adds.

    Args:
        spec: what is measured.
        launch: index of the launch.
        progress: is told of every phase and iteration.
        surroundings: reads host and devices around every iteration.
        read_ahead: reads the next launch's weights while this one's engine starts.
    """

    def __init__(
        self, spec: Spec, launch: int, progress: Progress, surroundings: Surroundings, read_ahead: ReadAhead
    ) -> None:
        self.spec = spec
        self.launch = launch
        self.progress = progress
        self.surroundings = surroundings
        self.flags: list[Flag] = []
        self._read_ahead = read_ahead
        self._started_at = clock()
        self._began = time.monotonic()
        self._process_s: float | None = None
        self._wall_s = 0.0
        self._ready: Ready | None = None
        self._placement: Placement | None = None

    def take(self, event: Event) -> None:
        """Takes one event."""
        if isinstance(event, PhaseBegins):
            if event.phase == "importing":
                self._process_s = time.monotonic() - self._began
            elif event.phase == "initializing":
                self._read_ahead.start()
            self.progress.phase(event.phase)
        elif isinstance(event, Ready):
            self._read_ahead.stop()  # before any iteration, warm-up included
            self._ready = event
            self.flags += event.flags
            self.surroundings.ready(event.environment.device_count)
        elif isinstance(event, IterationBegins):
            self.surroundings.before()
        elif isinstance(event, IterationEnds):
            self.surroundings.ends()
        elif isinstance(event, Done):
            self._wall_s = time.monotonic() - self._began
            counted = self.counted()
            self._placement = self.surroundings.placement(counted)
            self.flags += [*neighbour_flags(self._placement), *self.surroundings.flags(counted)]

    def counted(self) -> Collection[int] | None:
        """Numbers of the passes that count, from 0; None where all do."""
        return None

    def facts(self, reported: dict[str, float]) -> EngineFacts:
        """What the engine said of itself; what it lacks comes from `reported`, what it logged."""
        assert self._ready is not None, "the engine delivered before it was ready"
        facts = self._ready.engine
        tokens = reported.get("kv_cache_tokens")
        if facts.kv_cache_tokens is None and tokens is not None:
            return facts.model_copy(update={"kv_cache_tokens": int(tokens)})
        return facts

    def launched(self, log: str) -> dict[str, Any]:
        """The fields that all records have, `validity` apart, once all came; `log` is the engine's output."""
        assert self._ready is not None, "the engine delivered before it was ready"
        reported = read_log(log)
        facts = self.facts(reported)
        reported.pop("kv_cache_tokens", None)
        return {
            "schema_version": SCHEMA_VERSION,
            "measurement_version": self.spec.measurement_version,
            "key": self.spec.key(),
            "launch": self.launch,
            "started_at": self._started_at,
            "wall_s": self._wall_s,
            "spec": self.spec,
            "environment": self._ready.environment,
            "engine": facts,
            "placement": self._placement,
            "startup": Startup(
                process_s=self._process_s,
                import_s=self._ready.import_s,
                init_s=self._ready.init_s,
                read_ahead_bytes=self._read_ahead.bytes_read,
                reported=reported,
                replicas=self._ready.replicas,
            ),
        }
