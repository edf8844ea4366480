"""The record of a messages launch."""

from pathlib import Path
from statistics import fmean

from rollout_bench.contracts.store import write_launched
from rollout_bench.core.numbers import number, several
from rollout_bench.measure.launch.protocol import Event
from rollout_bench.measure.launch.recorder import CollectorContext, ProbeRecordBuilder
from rollout_bench.modes.messages.events import MessageFacts, MessagesObserved
from rollout_bench.modes.messages.record import Messages, MessageStep


class Collector(ProbeRecordBuilder):
    """Collects the messages of a launch."""

    def __init__(self, given: CollectorContext) -> None:
        super().__init__(given)
        self._facts: MessageFacts | None = None
        self._steps: list[MessageStep] = []

    def take(self, event: Event) -> None:
        """Process one event."""
        super().take(event)
        if isinstance(event, MessageFacts):
            self._facts = event
        elif isinstance(event, MessagesObserved):
            self.read_surroundings(counts=event.steps[0].purpose == "times")
            self._steps += event.steps
            self.flags += event.flags
            mean_s = fmean(step.elapsed_s for step in event.steps)
            steps = f"{several(len(event.steps), 'step')} of {number(1000 * mean_s, 3)} ms"
            self.progress.say(f"messages of batch {event.steps[0].batch}, {event.steps[0].purpose}: {steps}")

    def write(self, log: str, path: Path) -> None:
        """Write the record to `path`; `log` is the engine's output."""
        assert self._facts is not None, "the engine was done before it had looked at anything"
        facts = self._facts.model_dump(exclude={"event"})
        write_launched(path, Messages(**self.shared_fields(log), **facts, steps=self._steps))
