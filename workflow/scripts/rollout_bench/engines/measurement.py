"""From the engine's events to the record of a launch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rollout_bench.engines.collecting import Collecting
from rollout_bench.engines.comparable import comparable_s
from rollout_bench.engines.concurrency import batch_flags
from rollout_bench.engines.events import Event, IterationDone, WarmupExtended
from rollout_bench.engines.fallbacks import fallback_flags
from rollout_bench.engines.interference import device_flags, host_flags
from rollout_bench.engines.online_doubts import online_flags
from rollout_bench.engines.progress import Progress
from rollout_bench.engines.read_ahead import ReadAhead
from rollout_bench.engines.steadiness import judge
from rollout_bench.engines.surroundings import Surroundings
from rollout_bench.engines.together import apart_flags
from rollout_bench.plan.spec import Spec
from rollout_bench.records.online import ServerSample
from rollout_bench.records.record import EngineFacts, Flag, Iteration, Record, SequenceRow
from rollout_bench.records.store import sequences_path, server_path, write_record


class Measurement(Collecting):
    """Collects the iterations of a launch."""

    def __init__(
        self, spec: Spec, launch: int, progress: Progress, surroundings: Surroundings, read_ahead: ReadAhead
    ) -> None:
        super().__init__(spec, launch, progress, surroundings, read_ahead)
        self._iterations: list[Iteration] = []
        self._sequences: list[SequenceRow] = []
        self._samples: list[ServerSample] = []
        self._extensions: list[WarmupExtended] = []

    def take(self, event: Event) -> None:
        """Takes one event."""
        super().take(event)
        if isinstance(event, IterationDone):
            self._iterations.append(self.surroundings.after(event.iteration))
            self._sequences += event.sequences
            self._samples += event.samples
            self.flags += event.flags
            self.progress.iteration(event.iteration)
        elif isinstance(event, WarmupExtended):
            self._extend_warmup(event)

    def counted(self) -> set[int]:
        """Numbers of the iterations that count, from 0."""
        return {number for number, iteration in enumerate(self._iterations) if not iteration.warmup}

    def record(self, log: str, path: Path) -> tuple[Record, list[SequenceRow], list[ServerSample]]:
        """The record that is to lie at `path` with its side files, once all came; `log` is the engine's output."""
        launched = self.launched(log)
        record = Record(
            **launched,
            iterations=self._iterations,
            validity=[*self.flags, *self._doubts(launched["engine"], log)],
            sequences_file=sequences_path(path).name,
            server_file=server_path(path).name if self.spec.mode == "online" else None,
        )
        return record, self._sequences, self._samples

    def write(self, log: str, path: Path) -> None:
        """Writes the record to `path`, and its side files beside it."""
        write_record(path, *self.record(log, path))

    def _extend_warmup(self, event: WarmupExtended) -> None:
        """The first iterations that counted so far no longer do."""
        for position in event.iterations:
            self._iterations[position] = self._iterations[position].model_copy(update={"warmup": True})
        self._extensions.append(event)
        self.progress.warmup_extended(len(event.iterations))

    def _doubts(self, facts: EngineFacts, log: str) -> list[Flag]:
        """Flags that only the whole launch can raise."""
        measured = [iteration for iteration in self._iterations if not iteration.warmup]
        counted = {iteration.index for iteration in measured}
        return [
            *batch_flags(self.spec, [row for row in self._sequences if row.iteration in counted], facts),
            *([] if self.spec.endpoint is not None else host_flags(self.spec.platform, measured)),
            *device_flags(measured),
            *apart_flags(measured),
            *warmup_flags(self._extensions),
            *(flag for point in by_point(measured) for flag in steadiness_flags(_comparable(self.spec, point))),
            *fallback_flags(log),
            *(online_flags(measured, self._sequences) if self.spec.load is not None else []),
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
