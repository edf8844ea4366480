"""The record of a profile launch."""

import shutil
from pathlib import Path
from statistics import fmean

from rollout_bench.contracts.store import traces_path, write_launched
from rollout_bench.core.numbers import number, several
from rollout_bench.measure.launch.protocol import Event, IterationDone
from rollout_bench.measure.launch.recorder import CollectorContext, ProbeRecordBuilder
from rollout_bench.modes.profile.events import StepsDone
from rollout_bench.modes.profile.record import Profile, Step, TraceFile


class Collector(ProbeRecordBuilder):
    """Collects the steps and traces of a profile launch."""

    def __init__(self, given: CollectorContext) -> None:
        super().__init__(given)
        assert given.traces is not None, "the mode has traces"
        self._folder = given.traces
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
            if event.steps:
                mean_s = fmean(step.elapsed_s for step in event.steps)
                what = several(len(event.steps), f"{event.steps[0].phase} step")
                how = ", traced" if event.steps[0].profiled else ""
                self.progress.say(f"{what} of {number(1000 * mean_s, 3)} ms{how}")

    def write(self, log: str, path: Path) -> None:
        """Move the traces beside `path`, then write the record there."""
        folder = traces_path(path)
        record = Profile(
            **self.shared_fields(log),
            steps=self._steps,
            traces=self._traces,
            traces_folder=folder.name,
        )
        if folder.exists():  # left by a deleted record
            shutil.rmtree(folder)
        self._folder.rename(folder)
        write_launched(path, record)
