"""Builds the record of a launch from the engine's events, for each mode."""

from __future__ import annotations

import shutil
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rollout_bench.contracts.cycles import WeightProof
from rollout_bench.contracts.inside import (
    Drift,
    LinearShape,
    Profile,
    ScoredRow,
    Step,
    TraceFile,
)
from rollout_bench.contracts.messages import Messages, MessageStep
from rollout_bench.contracts.record import (
    SCHEMA_VERSION,
    Block,
    DeviceUse,
    EngineFacts,
    Flag,
    HostUse,
    Iteration,
    Placement,
    Record,
    SequenceRow,
    Startup,
)
from rollout_bench.contracts.spec import Spec
from rollout_bench.contracts.starts import StartCourse
from rollout_bench.contracts.store import (
    scores_path,
    sequences_path,
    traces_path,
    write_launched,
    write_record,
    write_scores,
)
from rollout_bench.measure.launch.flags import (
    batch_flags,
    client_flags,
    fallback_flags,
    online_flags,
    read_log,
    reuse_flags,
    weight_flags,
)
from rollout_bench.measure.launch.forked import Imported
from rollout_bench.measure.launch.progress import Progress
from rollout_bench.measure.launch.protocol import (
    Done,
    Event,
    IterationBegins,
    IterationDone,
    IterationEnds,
    Linears,
    MessageFacts,
    MessagesSeen,
    PhaseBegins,
    ProofsTaken,
    Ready,
    SequencesScored,
    StartSeen,
    StepsDone,
)
from rollout_bench.measure.launch.replicas import apart_flags
from rollout_bench.measure.launch.steadiness import comparable_times, judge
from rollout_bench.measure.machine.readings import (
    Surroundings,
    device_flags,
    host_flags,
)
from rollout_bench.measure.starts.start_phases import StartSpan, cache_flags, shared_out


def clock() -> str:
    """Return the current time in UTC, ISO 8601."""
    return time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())


class Collecting:
    """Collects the data that all modes share; subclasses add the data of their mode.

    Args:
        spec: the spec of the launch.
        launch: index of the launch.
        progress: prints each phase and iteration.
        surroundings: reads host and devices around each iteration.
    """

    def __init__(self, spec: Spec, launch: int, progress: Progress, surroundings: Surroundings) -> None:
        self.spec = spec
        self.launch = launch
        self.progress = progress
        self.surroundings = surroundings
        self.flags: list[Flag] = []
        self.block: Block | None = None
        """The block of the launch, once known."""
        self.imported: Imported | None = None
        """The import from which the engine was forked; None for a plain start."""
        self.model_files: dict[str, str] = {}
        """Identities of the model's files, if known."""
        self._started_at = clock()
        self._began = time.monotonic()
        self._process_s: float | None = None
        self._wall_s = 0.0
        self._ready: Ready | None = None
        self._placement: Placement | None = None

    def take(self, event: Event) -> None:
        """Process one event."""
        if isinstance(event, PhaseBegins):
            if event.phase == "importing":
                self._process_s = time.monotonic() - self._began
            self.progress.phase(event.phase)
        elif isinstance(event, Ready):
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
            self.flags += self.surroundings.flags(counted)

    def counted(self) -> Collection[int] | None:
        """Return the numbers of the passes that count, from 0; None if all count."""
        return None

    def facts(self, reported: dict[str, float]) -> EngineFacts:
        """Return the engine's facts, with the KV cache size from the log's numbers `reported` if it is missing."""
        assert self._ready is not None, "the engine delivered before it was ready"
        facts = self._ready.engine
        tokens = reported.get("kv_cache_tokens")
        if facts.kv_cache_tokens is None and tokens is not None:
            return facts.model_copy(update={"kv_cache_tokens": int(tokens)})
        return facts

    def launched(self, log: str) -> dict[str, Any]:
        """Return the fields that all records share, without `validity`; `log` is the engine's output."""
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
            "block": self.block,
            "model_files": self.model_files or None,
            "startup": Startup(
                process_s=self._process_s,
                import_s=self._ready.import_s if self.imported is None else self.imported.seconds,
                init_s=self._ready.init_s,
                forked=self.imported is not None or None,
                reported=reported,
                replicas=self._ready.replicas,
            ),
        }


class Measurement(Collecting):
    """Collects the iterations of a launch."""

    def __init__(self, spec: Spec, launch: int, progress: Progress, surroundings: Surroundings) -> None:
        super().__init__(spec, launch, progress, surroundings)
        self._iterations: list[Iteration] = []
        self._sequences: list[SequenceRow] = []
        self._proofs: list[WeightProof] = []

    def take(self, event: Event) -> None:
        """Process one event."""
        super().take(event)
        if isinstance(event, IterationDone):
            self._iterations.append(self.surroundings.after(event.iteration))
            self._sequences += event.sequences
            self.flags += event.flags
            self.progress.iteration(event.iteration)
        elif isinstance(event, ProofsTaken):
            self._proofs = event.proofs

    def counted(self) -> set[int]:
        """Return the numbers of the iterations that count, from 0."""
        return {number for number, iteration in enumerate(self._iterations) if not iteration.warmup}

    def record(self, log: str, path: Path) -> tuple[Record, list[SequenceRow]]:
        """Return the record for `path` and the rows of its side file; `log` is the engine's output."""
        launched = self.launched(log)
        record = Record(
            **launched,
            iterations=self._iterations,
            validity=[*self.flags, *self._doubts(launched["engine"], log)],
            sequences_file=sequences_path(path).name,
            weight_proofs=self._proofs or None,
            no_energy=self.surroundings.why_no_energy(self._iterations),
        )
        return record, self._sequences

    def write(self, log: str, path: Path) -> None:
        """Write the record to `path` and its side file beside it."""
        write_record(path, *self.record(log, path))

    def _doubts(self, facts: EngineFacts, log: str) -> list[Flag]:
        """Return the flags that need the whole launch."""
        measured = [iteration for iteration in self._iterations if not iteration.warmup]
        counted = {iteration.index for iteration in measured}
        return [
            *batch_flags(self.spec, [row for row in self._sequences if row.iteration in counted], facts),
            *host_flags(self.spec.platform, [it.host for it in measured if it.host and self.spec.endpoint is None]),
            *device_flags([(it.index, use) for it in measured for use in it.devices or ()]),
            *apart_flags(measured),
            *(
                flag
                for point in by_point(measured)
                for flag in steadiness_flags(comparable_times(self.spec.workload, point))
            ),
            *fallback_flags(log),
            *(online_flags(measured, self._sequences) if self.spec.load is not None else []),
            *reuse_flags(self.spec, (row for row in self._sequences if row.iteration in counted), facts),
            *(client_flags(measured) if self.spec.rollout is not None else []),
            *weight_flags(self.spec, self._proofs, trained=any(map(_is_trained, self._iterations))),
        ]


def _is_trained(iteration: Iteration) -> bool:
    return iteration.placed is not None and any(rank.loss is not None for rank in iteration.placed.ranks)


def by_point(iterations: Sequence[Iteration]) -> list[list[Iteration]]:
    """Group `iterations` by their load; offline launches have one group."""
    grouped: dict[str, list[Iteration]] = {}
    for iteration in iterations:
        grouped.setdefault("" if iteration.point is None else iteration.point.label, []).append(iteration)
    return list(grouped.values())


def steadiness_flags(elapsed_s: Sequence[float]) -> list[Flag]:
    """Return a flag if the times of the iterations that count [n], in seconds, are not steady."""
    doubt = judge(elapsed_s)
    if doubt is None:
        return []
    more = f" It would take {doubt.more} more of warm-up." if doubt.more else ""
    return [Flag(code=doubt.code, severity="warning", sentence=doubt.sentence + more)]


class StartCollecting(Measurement):
    """Collects the times of a start; its arguments are those of `Collecting`."""

    weights_bytes: int | None = None
    """Size of the weight files in bytes, if known."""

    _seen: StartSeen | None = None

    def take(self, event: Event) -> None:
        """Process one event."""
        super().take(event)
        if isinstance(event, StartSeen):
            self._seen = event

    def launched(self, log: str) -> dict[str, Any]:
        """Return the fields that all records share, with the phases of the start."""
        fields = super().launched(log)
        return fields | {"startup": fields["startup"].model_copy(update={"course": self._course()})}

    def _doubts(self, facts: EngineFacts, log: str) -> list[Flag]:
        startup = self.spec.startup
        assert startup is not None, "specs of this mode have it"
        return [*super()._doubts(facts, log), *cache_flags(startup.caches, self._course())]

    def _course(self) -> StartCourse:
        seen = self._seen
        assert seen is not None, "the engine was done before it had told of its start"
        spans = [StartSpan(name=name, began=began, ended=ended) for name, began, ended in seen.spans]
        process = StartSpan(name="process", began=self._began, ended=seen.imports)
        began = self._began if seen.began is None else seen.began
        phases, rest_s = shared_out([process, *spans], began, seen.token)
        return StartCourse(
            phases=phases,
            rest_s=rest_s,
            until_token_s=seen.token - began,
            after_s=None if seen.began is None else max(0.0, began - self._began),
            weights_bytes=self.weights_bytes,
            cache_files=seen.cache_files,
        )


class InsideCollecting(Collecting):
    """Collects the data shared by modes that inspect the engine; its arguments are those of `Collecting`."""

    def __init__(self, spec: Spec, launch: int, progress: Progress, surroundings: Surroundings) -> None:
        super().__init__(spec, launch, progress, surroundings)
        self._linears: list[LinearShape] = []
        self._host: list[HostUse] = []
        self._devices: list[DeviceUse] = []

    def take(self, event: Event) -> None:
        """Process one event."""
        super().take(event)
        if isinstance(event, Linears):
            self._linears = event.linears

    def read_surroundings(self, *, counts: bool = True) -> None:
        """Read host and devices for the last pass; keep the readings if the pass counts."""
        host, devices = self.surroundings.meanwhile()
        if counts:
            self._host += [host] if host is not None else []
            self._devices += devices

    def looked_inside(self, log: str) -> dict[str, Any]:
        """Return the fields that records of these modes share; `log` is the engine's output."""
        doubts = [
            *host_flags(self.spec.platform, self._host),
            *device_flags(list(enumerate(self._devices))),
            *fallback_flags(log),
        ]
        return {
            **self.launched(log),
            "validity": [*self.flags, *doubts],
            "host": self._host,
            "devices": self._devices,
        }


class ProfileCollecting(InsideCollecting):
    """Collects the steps and traces of a profile launch; takes the arguments of `Collecting` and one more.

    Args:
        traces: folder that holds the traces until the record is written.
    """

    def __init__(self, spec: Spec, launch: int, progress: Progress, surroundings: Surroundings, traces: Path) -> None:
        super().__init__(spec, launch, progress, surroundings)
        self._folder = traces
        self._steps: list[Step] = []
        self._traces: list[TraceFile] = []

    def take(self, event: Event) -> None:
        """Process one event."""
        super().take(event)
        if isinstance(event, IterationDone):
            self.progress.iteration(event.iteration)
        elif isinstance(event, StepsDone) and (event.steps or event.traces):
            self.read_surroundings()
            self._steps += event.steps
            self._traces += event.traces
            self.progress.steps(event.steps)

    def write(self, log: str, path: Path) -> None:
        """Move the traces beside `path`, then write the record there."""
        folder = traces_path(path)
        record = Profile(
            **self.looked_inside(log),
            linears=self._linears,
            steps=self._steps,
            traces=self._traces,
            traces_folder=folder.name,
        )
        if folder.exists():  # left by a deleted record
            shutil.rmtree(folder)
        self._folder.rename(folder)
        write_launched(path, record)


class MessagesCollecting(InsideCollecting):
    """Collects the messages of a launch; its arguments are those of `Collecting`."""

    def __init__(self, spec: Spec, launch: int, progress: Progress, surroundings: Surroundings) -> None:
        super().__init__(spec, launch, progress, surroundings)
        self._facts: MessageFacts | None = None
        self._steps: list[MessageStep] = []

    def take(self, event: Event) -> None:
        """Process one event."""
        super().take(event)
        if isinstance(event, MessageFacts):
            self._facts = event
        elif isinstance(event, MessagesSeen):
            self.read_surroundings(counts=event.steps[0].look == "times")
            self._steps += event.steps
            self.flags += event.flags
            self.progress.messages(event.steps)

    def write(self, log: str, path: Path) -> None:
        """Write the record to `path`; `log` is the engine's output."""
        assert self._facts is not None, "the engine was done before it had looked at anything"
        facts = self._facts.model_dump(exclude={"event"})
        write_launched(path, Messages(**self.looked_inside(log), **facts, steps=self._steps))


class DriftCollecting(Collecting):
    """Collects the probabilities of a drift launch; its arguments are those of `Collecting`.

    Drift launches are not timed, so a busy machine does not invalidate them.
    """

    def __init__(self, spec: Spec, launch: int, progress: Progress, surroundings: Surroundings) -> None:
        super().__init__(spec, launch, progress, surroundings)
        self._rows: list[ScoredRow] = []
        self._sha256 = ""

    def take(self, event: Event) -> None:
        """Process one event."""
        doubts = list(self.flags)
        super().take(event)
        if isinstance(event, Done):
            self.flags = doubts
        elif isinstance(event, SequencesScored):
            self.surroundings.meanwhile()
            self._rows += event.rows
            self._sha256 = event.tokens_sha256
            self.progress.scored(event.rows)

    def write(self, log: str, path: Path) -> None:
        """Write the record to `path` and its side file beside it; `log` is the engine's output."""
        assert self.spec.drift is not None, "specs of this mode have it"
        batch = self.spec.drift.batch_sizes[0]
        record = Drift(
            **self.launched(log),
            validity=[*self.flags, *fallback_flags(log)],
            tokens_sha256=self._sha256,
            scored_tokens=sum(len(row.logprobs) for row in self._rows if row.batch == batch),
            scores_file=scores_path(path).name,
            scores=len(self._rows),
            side_files_sha256={},
        )
        write_scores(path, record, self._rows)


Collector = Measurement | ProfileCollecting | MessagesCollecting | DriftCollecting


def collector(
    spec: Spec, launch: int, progress: Progress, surroundings: Surroundings, traces: Path | None
) -> Collector:
    """Return the collector for the mode of `spec`; `traces` comes from `folder_for_traces`."""
    if traces is not None:
        return ProfileCollecting(spec, launch, progress, surroundings, traces)
    if spec.startup is not None:
        return StartCollecting(spec, launch, progress, surroundings)
    if spec.messages is not None:
        return MessagesCollecting(spec, launch, progress, surroundings)
    if spec.drift is not None:
        return DriftCollecting(spec, launch, progress, surroundings)
    return Measurement(spec, launch, progress, surroundings)


@contextmanager
def folder_for_traces(spec: Spec, record: Path) -> Iterator[Path | None]:
    """Yield an empty folder beside `record`, removed afterwards unless renamed; None if the mode has no traces.

    The folder is on the file system of the results, so that a rename moves complete traces into place.
    """
    if spec.profile is None:
        yield None
        return
    final = traces_path(record)
    folder = final.with_name(f".{final.name}.unfinished").absolute()
    shutil.rmtree(folder, ignore_errors=True)  # left by a killed launch
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
