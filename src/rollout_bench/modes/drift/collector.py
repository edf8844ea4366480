"""The record of a drift launch."""

from pathlib import Path

from rollout_bench.contracts.store import write_with_rows
from rollout_bench.core.numbers import several
from rollout_bench.measure.launch.flags import fallback_flags
from rollout_bench.measure.launch.protocol import Done, Event
from rollout_bench.measure.launch.recorder import CollectorContext, RecordBuilder
from rollout_bench.modes.drift.events import SequencesScored
from rollout_bench.modes.drift.record import Drift, ScoredRow, scores_path
from rollout_bench.modes.drift.settings import DriftSpec


class Collector(RecordBuilder):
    """Collects the probabilities of a drift launch.

    Drift launches are not timed, so a busy machine does not invalidate them.
    """

    def __init__(self, given: CollectorContext) -> None:
        super().__init__(given)
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
            batch = event.rows[0].batch
            what = "sampled" if batch is None else f"scored {batch} at once"
            self.progress.say(f"{several(len(event.rows), 'sequence')} {what}")

    def write(self, log: str, path: Path) -> None:
        """Write the record to `path` and its side file beside it; `log` is the engine's output."""
        batch = self.spec.of(DriftSpec).batch_sizes[0]
        record = Drift(
            **self.launched(log),
            validity=[*self.flags, *fallback_flags(log)],
            tokens_sha256=self._sha256,
            scored_tokens=sum(len(row.logprobs) for row in self._rows if row.batch == batch),
            scores_file=scores_path(path).name,
            scores=len(self._rows),
        )
        write_with_rows(path, record, scores_path(path), self._rows)
