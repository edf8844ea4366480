"""Builds the record of a launch from the engine's events, for each mode."""

import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rollout_bench.contracts.mode import TRACES
from rollout_bench.contracts.modes import mode_of
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
from rollout_bench.contracts.store import (
    sequences_path,
    traces_path,
    write_record,
)
from rollout_bench.contracts.weights import WeightProof
from rollout_bench.measure.launch.flags import (
    acceptance_flags,
    batch_flags,
    fallback_flags,
    read_log,
    routed_flags,
)
from rollout_bench.measure.launch.progress import Progress
from rollout_bench.measure.launch.protocol import (
    Done,
    Event,
    IterationBegins,
    IterationDone,
    IterationEnds,
    PhaseBegins,
    ProofsTaken,
    Ready,
)
from rollout_bench.measure.launch.replicas import apart_flags
from rollout_bench.measure.machine.readings import (
    HostMonitor,
    device_flags,
    host_flags,
)


@dataclass(frozen=True)
class CollectorContext:
    """What a collector is made from.

    Attributes:
        spec: the spec of the launch.
        launch: index of the launch.
        progress: prints each phase and iteration.
        surroundings: reads host and devices around each iteration.
        model: folder with the weights, or hub id.
        traces: folder from `folder_for_traces`.
    """

    spec: Spec
    launch: int
    progress: Progress
    surroundings: HostMonitor
    model: str = ""
    traces: Path | None = None


class RecordBuilder(ABC):
    """Collects the data that all modes share; subclasses add the data of their mode."""

    def __init__(self, given: CollectorContext) -> None:
        self.spec, self.launch = given.spec, given.launch
        self.progress, self.surroundings = given.progress, given.surroundings
        self.flags: list[Flag] = []
        self.block: Block | None = None
        """The block of the launch, once known."""
        self.after: list[str] = []
        """Launches that used the engine before."""
        self.model_files: dict[str, str] = {}
        """Identities of the model's files, if known."""
        self._started = time.time()
        self.began = time.monotonic()
        self._process_s: float | None = None
        self._wall_s = 0.0
        self._ready: Ready | None = None
        self._placement: Placement | None = None

    def begin_later(self, seconds: float) -> None:
        """Let the launch begin so much later, because the time before it is not the engine's."""
        self._started += seconds
        self.began += seconds

    def take(self, event: Event) -> None:
        """Process one event."""
        if isinstance(event, PhaseBegins):
            if event.phase == "importing":
                self._process_s = time.monotonic() - self.began
            self.progress.phase(event.phase)
        elif isinstance(event, Ready):
            self._ready = event
            self.flags += event.flags
        elif isinstance(event, IterationBegins):
            self.surroundings.before()
        elif isinstance(event, IterationEnds):
            self.surroundings.ends()
        elif isinstance(event, Done):
            self._wall_s = time.monotonic() - self.began
            counted = self.counted()
            self._placement = self.surroundings.placement(counted)
            self.flags += self.surroundings.flags(counted)

    @abstractmethod
    def write(self, log: str, path: Path) -> None:
        """Write the record to `path` and its side files beside it; `log` is the engine's output."""

    def counted(self) -> Collection[int] | None:
        """Return the numbers of the passes that count, from 0; None if all count."""
        return None

    def launched(self, log: str) -> dict[str, Any]:
        """Return the fields that all records share, without `validity`; `log` is the engine's output."""
        assert self._ready is not None, "the engine delivered before it was ready"
        reported, facts = read_log(log), self._ready.engine
        tokens = reported.pop("kv_cache_tokens", None)
        if facts.kv_cache_tokens is None and tokens is not None:
            facts = facts.model_copy(update={"kv_cache_tokens": int(tokens)})
        return {
            "schema_version": SCHEMA_VERSION,
            "measurement_version": self.spec.measurement_version,
            "key": self.spec.key(),
            "launch": self.launch,
            "started_at": time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(self._started)),
            "wall_s": self._wall_s,
            "spec": self.spec,
            "environment": self._ready.environment,
            "engine": facts,
            "placement": self._placement,
            "block": self.block,
            "after": self.after or None,
            "model_files": self.model_files or None,
            "startup": Startup(
                process_s=self._process_s,
                import_s=self._ready.import_s,
                init_s=self._ready.init_s,
                forked=self._ready.forked,
                reported={} if self.after else reported,
                replicas=self._ready.replicas,
            ),
        }


class Measurement(RecordBuilder):
    """Collects the iterations of a launch."""

    def __init__(self, given: CollectorContext) -> None:
        super().__init__(given)
        self.iterations: list[Iteration] = []
        self.sequences: list[SequenceRow] = []
        self.proofs: list[WeightProof] = []

    def take(self, event: Event) -> None:
        """Process one event."""
        super().take(event)
        if isinstance(event, IterationDone):
            self.iterations.append(self.surroundings.after(event.iteration))
            self.sequences += event.sequences
            self.flags += event.flags
            self.progress.iteration(event.iteration)
        elif isinstance(event, ProofsTaken):
            self.proofs = event.proofs

    def counted(self) -> set[int]:
        """Return the numbers of the iterations that count, from 0."""
        return {number for number, iteration in enumerate(self.iterations) if not iteration.warmup}

    def record(self, log: str, path: Path) -> tuple[Record, list[SequenceRow]]:
        """Return the record for `path` and the rows of its side file; `log` is the engine's output."""
        launched = self.launched(log)
        record = Record(
            **launched,
            iterations=self.iterations,
            validity=[*self.flags, *self.doubts(launched["engine"], log)],
            sequences_file=sequences_path(path).name,
            weight_proofs=self.proofs or None,
            no_energy=self.surroundings.why_no_energy(self.iterations),
        )
        return record, self.sequences

    def write(self, log: str, path: Path) -> None:
        """Write the record to `path` and its side file beside it."""
        write_record(path, *self.record(log, path))

    def doubts(self, facts: EngineFacts, log: str) -> list[Flag]:
        """Return the flags that need the whole launch."""
        measured = [iteration for iteration in self.iterations if not iteration.warmup]
        counted = {iteration.index for iteration in measured}
        rows = [row for row in self.sequences if row.iteration in counted]
        return [
            *batch_flags(self.spec, rows, facts),
            *routed_flags(self.spec, rows),
            *host_flags(self.spec.platform, [it.host for it in measured if it.host and self.spec.endpoint is None]),
            *device_flags([(it.index, use) for it in measured for use in it.devices or ()]),
            *apart_flags(measured),
            *acceptance_flags(self.spec, measured),
            *fallback_flags(log),
        ]


class ProbeRecordBuilder(RecordBuilder):
    """Collects the data shared by modes that inspect the engine."""

    def __init__(self, given: CollectorContext) -> None:
        super().__init__(given)
        self._host: list[HostUse] = []
        self._devices: list[DeviceUse] = []

    def read_surroundings(self, *, counts: bool = True) -> None:
        """Read host and devices for the last pass; keep the readings if the pass counts."""
        host, devices = self.surroundings.meanwhile()
        if counts:
            self._host += [host] if host is not None else []
            self._devices += devices

    def shared_fields(self, log: str) -> dict[str, Any]:
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


@contextmanager
def folder_for_traces(spec: Spec, record: Path) -> Iterator[Path | None]:
    """Yield an empty folder beside `record`, removed afterwards unless renamed; None if the mode has no traces.

    The folder is on the file system of the results, so that a rename moves complete traces into place.
    """
    if TRACES not in mode_of(spec.mode).side_files:
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
