"""From the engine's events to the record of a launch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from rollout_bench.engines.comparable import comparable_s
from rollout_bench.engines.concurrency import batch_flags
from rollout_bench.engines.events import (
    Done,
    Event,
    IterationBegins,
    IterationDone,
    IterationEnds,
    PhaseBegins,
    Ready,
    WarmupExtended,
)
from rollout_bench.engines.fallbacks import fallback_flags
from rollout_bench.engines.interference import device_flags, host_flags
from rollout_bench.engines.log_reader import read_log
from rollout_bench.engines.online_doubts import online_flags
from rollout_bench.engines.progress import Progress
from rollout_bench.engines.read_ahead import ReadAhead
from rollout_bench.engines.steadiness import judge
from rollout_bench.engines.surroundings import Surroundings
from rollout_bench.plan.spec import Spec
from rollout_bench.records.online import ServerSample
from rollout_bench.records.record import SCHEMA_VERSION, EngineFacts, Flag, Iteration, Record, SequenceRow, Startup
from rollout_bench.records.store import sequences_path, server_path


def clock() -> str:
    """Now in UTC, ISO 8601."""
    return time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())


class Measurement:
    """Collects what the engine process delivers.

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
        self._spec = spec
        self._launch = launch
        self._progress = progress
        self._surroundings = surroundings
        self._read_ahead = read_ahead
        self._started_at = clock()
        self._began = time.monotonic()
        self._process_s: float | None = None
        self._wall_s = 0.0
        self._ready: Ready | None = None
        self._iterations: list[Iteration] = []
        self._sequences: list[SequenceRow] = []
        self._samples: list[ServerSample] = []
        self._flags: list[Flag] = []
        self._extensions: list[WarmupExtended] = []

    def take(self, event: Event) -> None:
        """Takes one event."""
        if isinstance(event, PhaseBegins):
            if event.phase == "importing":
                self._process_s = time.monotonic() - self._began
            elif event.phase == "initializing":
                self._read_ahead.start()
            self._progress.phase(event.phase)
        elif isinstance(event, Ready):
            self._read_ahead.stop()  # before any iteration, warm-up included
            self._ready = event
            self._flags += event.flags
            self._surroundings.ready(event.environment.device_count)
        elif isinstance(event, IterationBegins):
            self._surroundings.before()
        elif isinstance(event, IterationEnds):
            self._surroundings.ends()
        elif isinstance(event, IterationDone):
            self._iterations.append(self._surroundings.after(event.iteration))
            self._sequences += event.sequences
            self._samples += event.samples
            self._flags += event.flags
            self._progress.iteration(event.iteration)
        elif isinstance(event, WarmupExtended):
            self._extend_warmup(event)
        elif isinstance(event, Done):
            self._wall_s = time.monotonic() - self._began

    def record(self, log: str, path: Path) -> tuple[Record, list[SequenceRow], list[ServerSample]]:
        """The record that is to lie at `path` with its side files, once all came; `log` is the engine's output."""
        assert self._ready is not None, "the engine delivered iterations before it was ready"
        reported = read_log(log)
        facts = self._ready.engine
        tokens = reported.pop("kv_cache_tokens", None)
        if facts.kv_cache_tokens is None and tokens is not None:
            facts = facts.model_copy(update={"kv_cache_tokens": int(tokens)})
        record = Record(
            schema_version=SCHEMA_VERSION,
            measurement_version=self._spec.measurement_version,
            key=self._spec.key(),
            launch=self._launch,
            started_at=self._started_at,
            wall_s=self._wall_s,
            spec=self._spec,
            environment=self._ready.environment,
            engine=facts,
            startup=Startup(
                process_s=self._process_s,
                import_s=self._ready.import_s,
                init_s=self._ready.init_s,
                read_ahead_bytes=self._read_ahead.bytes_read,
                reported=reported,
            ),
            iterations=self._iterations,
            validity=[*self._flags, *self._doubts(facts, log)],
            sequences_file=sequences_path(path).name,
            server_file=server_path(path).name if self._spec.mode == "online" else None,
        )
        return record, self._sequences, self._samples

    def _extend_warmup(self, event: WarmupExtended) -> None:
        """The first iterations that counted so far no longer do."""
        for position in event.iterations:
            self._iterations[position] = self._iterations[position].model_copy(update={"warmup": True})
        self._extensions.append(event)
        self._progress.warmup_extended(len(event.iterations))

    def _doubts(self, facts: EngineFacts, log: str) -> list[Flag]:
        """Flags that only the whole launch can raise."""
        measured = [iteration for iteration in self._iterations if not iteration.warmup]
        counted = {iteration.index for iteration in measured}
        return [
            *batch_flags(self._spec, [row for row in self._sequences if row.iteration in counted], facts),
            *([] if self._spec.endpoint is not None else host_flags(self._spec.platform, measured)),
            *device_flags(measured),
            *warmup_flags(self._extensions),
            *(flag for point in by_point(measured) for flag in steadiness_flags(_comparable(self._spec, point))),
            *fallback_flags(log),
            *(online_flags(measured, self._sequences) if self._spec.load is not None else []),
        ]


def by_point(iterations: Sequence[Iteration]) -> list[list[Iteration]]:
    """`iterations` that were run under the same load, one list for each; offline there is one."""
    grouped: dict[str, list[Iteration]] = {}
    for iteration in iterations:
        grouped.setdefault("" if iteration.point is None else iteration.point.label, []).append(iteration)
    return list(grouped.values())


def _comparable(spec: Spec, iterations: Sequence[Iteration]) -> list[float]:
    return [comparable_s(spec.workload, iteration) for iteration in iterations]


def warmup_flags(extensions: Sequence[WarmupExtended]) -> list[Flag]:
    """A flag where the warm-up took longer than planned: what was seen each time, and what was done."""
    if not extensions:
        return []
    more = sum(len(event.iterations) for event in extensions)
    did = f"{more} more count as warm-up and as many were measured in addition."
    sentence = " ".join([*(event.sentence for event in extensions), did])
    return [Flag(code="warmup_extended", severity="warning", sentence=sentence)]


def steadiness_flags(elapsed_s: Sequence[float]) -> list[Flag]:
    """A flag where the iterations that count [n], in seconds, are not steady, whatever was added to the warm-up."""
    doubt = judge(elapsed_s)
    if doubt is None:
        return []
    sentence = doubt.sentence
    if doubt.more:
        sentence += f" It would take {doubt.more} more of warm-up; the launch was not lengthened any further."
    return [Flag(code=doubt.code, severity="warning", sentence=sentence)]
