"""From the engine's events to the record of a profile launch."""

from __future__ import annotations

import shutil
from pathlib import Path

from rollout_bench.engines.collecting import Collecting
from rollout_bench.engines.events import Event, IterationDone, LimitsKnown, Linears, StepsDone
from rollout_bench.engines.fallbacks import fallback_flags
from rollout_bench.engines.interference import doubts_about_devices, doubts_about_host
from rollout_bench.engines.progress import Progress
from rollout_bench.engines.read_ahead import ReadAhead
from rollout_bench.engines.surroundings import Surroundings
from rollout_bench.plan.spec import Spec
from rollout_bench.records.limits import MachineLimits
from rollout_bench.records.profile import LinearShape, Profile, Step, TraceFile
from rollout_bench.records.record import DeviceUse, HostUse
from rollout_bench.records.store import traces_path, write_launched


class ProfileCollecting(Collecting):
    """Collects the steps and traces of a profile launch; its arguments are those of `Collecting`, and

    Args:
        traces: the folder that the traces are in until the record is written.
    """

    def __init__(
        self,
        spec: Spec,
        launch: int,
        progress: Progress,
        surroundings: Surroundings,
        read_ahead: ReadAhead,
        traces: Path,
    ) -> None:
        super().__init__(spec, launch, progress, surroundings, read_ahead)
        self._folder = traces
        self._linears: list[LinearShape] = []
        self._limits: MachineLimits | None = None
        self._steps: list[Step] = []
        self._traces: list[TraceFile] = []
        self._truncated: list[str] = []
        self._host: list[HostUse] = []
        self._devices: list[DeviceUse] = []

    def take(self, event: Event) -> None:
        """Takes one event."""
        super().take(event)
        if isinstance(event, Linears):
            self._linears = event.linears
        elif isinstance(event, LimitsKnown):
            self._limits = event.limits
        elif isinstance(event, IterationDone):
            self.progress.iteration(event.iteration)
        elif isinstance(event, StepsDone) and (event.steps or event.traces):
            host, devices = self.surroundings.meanwhile()
            self._host += [host] if host is not None else []
            self._devices += devices
            self._steps += event.steps
            self._traces += event.traces
            if event.truncated and event.traces:
                self._truncated.append(event.truncated)
            self.progress.steps(event.steps)

    def write(self, log: str, path: Path) -> None:
        """Puts the traces beside `path`, then writes the record there."""
        record = Profile(
            **self.launched(log),
            validity=[
                *self.flags,
                *doubts_about_host(self.spec.platform, self._host),
                *doubts_about_devices(list(enumerate(self._devices))),
                *fallback_flags(log),
            ],
            linears=self._linears,
            limits=self._limits,
            steps=self._steps,
            host=self._host,
            devices=self._devices,
            traces=self._traces,
            traces_folder=traces_path(path).name,
            truncated=" ".join(self._truncated) or None,
        )
        folder = traces_path(path)
        if folder.exists():  # of a record that was deleted
            shutil.rmtree(folder)
        self._folder.rename(folder)
        write_launched(path, record)
