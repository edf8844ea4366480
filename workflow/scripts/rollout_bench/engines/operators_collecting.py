"""From the engine's events to the record of an operators launch."""

from __future__ import annotations

from pathlib import Path

from rollout_bench.engines.collecting import Collecting
from rollout_bench.engines.events import Event, Linears, PointsTimed, RoundDone
from rollout_bench.engines.fallbacks import fallback_flags
from rollout_bench.engines.interference import doubts_about_devices, doubts_about_host
from rollout_bench.engines.progress import Progress
from rollout_bench.engines.read_ahead import ReadAhead
from rollout_bench.engines.surroundings import Surroundings
from rollout_bench.plan.profiling import decode_batch
from rollout_bench.plan.spec import Spec
from rollout_bench.records.operators import Operators
from rollout_bench.records.profile import LinearShape
from rollout_bench.records.record import DeviceUse, HostUse
from rollout_bench.records.store import write_launched


class OperatorsCollecting(Collecting):
    """Collects what an operators launch timed; its arguments are those of `Collecting`."""

    def __init__(
        self, spec: Spec, launch: int, progress: Progress, surroundings: Surroundings, read_ahead: ReadAhead
    ) -> None:
        super().__init__(spec, launch, progress, surroundings, read_ahead)
        self._linears: list[LinearShape] = []
        self._timed: PointsTimed | None = None
        self._host: list[HostUse] = []
        self._devices: list[DeviceUse] = []

    def take(self, event: Event) -> None:
        """Takes one event."""
        super().take(event)
        if isinstance(event, Linears):
            self._linears = event.linears
        elif isinstance(event, RoundDone):
            host, devices = self.surroundings.meanwhile()
            if event.counts:
                self._host += [host] if host is not None else []
                self._devices += devices
            self.progress.round(event.round)
        elif isinstance(event, PointsTimed):
            self.flags += event.flags
            self._timed = event

    def write(self, log: str, path: Path) -> None:
        """Writes the record to `path`; `log` is the engine's output."""
        assert self._timed is not None, "the engine was done before it had timed anything"
        common = self.launched(log)
        resolved = common["engine"].resolved
        workload = self.spec.workload
        write_launched(
            path,
            Operators(
                **common,
                validity=[
                    *self.flags,
                    *doubts_about_host(self.spec.platform, self._host),
                    *doubts_about_devices(list(enumerate(self._devices))),
                    *fallback_flags(log),
                ],
                linears=self._linears,
                decode_batch=decode_batch(workload.prompts, workload.samples_per_prompt, resolved),
                threads=self._timed.threads,
                evicted_bytes=self._timed.evicted_bytes,
                host=self._host,
                devices=self._devices,
                points=self._timed.points,
            ),
        )
