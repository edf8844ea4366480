"""The record of a rollout launch."""

from rollout_bench.contracts.record import EngineFacts, Flag
from rollout_bench.measure.launch.flags import client_flags
from rollout_bench.measure.launch.recorder import Measurement


class Collector(Measurement):
    """Collects the steps of a launch."""

    def doubts(self, facts: EngineFacts, log: str) -> list[Flag]:
        """Return the flags that need the whole launch."""
        return [*super().doubts(facts, log), *client_flags([it for it in self.iterations if not it.warmup])]
