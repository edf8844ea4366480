"""The record of a steps launch."""

from pathlib import Path

from rollout_bench.contracts.steps import StepRow, Steps, steps_path
from rollout_bench.contracts.store import write_with_rows
from rollout_bench.core.numbers import number, several
from rollout_bench.measure.launch.protocol import Event
from rollout_bench.measure.launch.recorder import CollectorContext, ProbeRecordBuilder
from rollout_bench.modes.steps.events import EngineLimits, StepsObserved


class Collector(ProbeRecordBuilder):
    """Collects the steps of a launch."""

    def __init__(self, given: CollectorContext) -> None:
        super().__init__(given)
        self._facts: EngineLimits | None = None
        self._rows: list[StepRow] = []

    def take(self, event: Event) -> None:
        """Process one event."""
        super().take(event)
        if isinstance(event, EngineLimits):
            self._facts = event
        elif isinstance(event, StepsObserved):
            self.read_surroundings()
            self._rows += event.rows
            mean_s = sum(row.elapsed_s for row in event.rows) / len(event.rows)
            first = event.rows[0]
            steps = f"{several(len(event.rows), 'step')} of {number(1000 * mean_s, 3)} ms"
            self.progress.say(f"round {first.round + 1}, pass {first.part + 1}: {steps}")

    def write(self, log: str, path: Path) -> None:
        """Write the record to `path` and its side file beside it; `log` is the engine's output."""
        assert self._facts is not None, "the engine was done before it had told its limits"
        steps = {"steps": len(self._rows), "steps_file": steps_path(path).name}
        record = Steps(**self.shared_fields(log), **self._facts.limits, **steps)
        write_with_rows(path, record, steps_path(path), self._rows)
