"""The record of an online launch."""

from __future__ import annotations

from rollout_bench.contracts.record import EngineFacts, Flag
from rollout_bench.measure.launch import flags
from rollout_bench.measure.launch.recorder import Measurement


class OnlineCollecting(Measurement):
    """Collects the iterations of a launch behind a server."""

    def doubts(self, facts: EngineFacts, log: str) -> list[Flag]:
        """Return the flags that need the whole launch."""
        measured = [iteration for iteration in self.iterations if not iteration.warmup]
        counted = {iteration.index for iteration in measured}
        rows = [row for row in self.sequences if row.iteration in counted]
        return [
            *super().doubts(facts, log),
            *flags.failure_flags(rows),
            *flags.cut_flags(rows),
            *flags.client_flags(measured),
            *flags.sent_late_flags(rows),
            *flags.preemption_flags(measured),
            *flags.reuse_flags(self.spec, rows, facts),
        ]
