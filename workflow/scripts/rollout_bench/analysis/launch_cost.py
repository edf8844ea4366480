"""What the time of one launch went to."""

from __future__ import annotations

from dataclasses import dataclass

from rollout_bench.records.record import Record


@dataclass(frozen=True)
class LaunchCost:
    """Seconds of one launch by part. `process_s` is 0 where the record does not say; then it is in `other_s`."""

    process_s: float
    import_s: float
    init_s: float
    warmup_s: float
    measured_s: float
    other_s: float

    @property
    def wall_s(self) -> float:
        """The whole launch, in seconds."""
        return self.process_s + self.import_s + self.init_s + self.warmup_s + self.measured_s + self.other_s


def parts_of(record: Record) -> LaunchCost:
    """The parts of a launch; `other_s`, what no other part explains, is never negative."""
    process_s = getattr(record.startup, "process_s", None) or 0.0
    import_s, init_s = record.startup.import_s, record.startup.init_s
    warmup_s = sum(iteration.elapsed_s for iteration in record.iterations if iteration.warmup)
    measured_s = sum(iteration.elapsed_s for iteration in record.iterations if not iteration.warmup)
    other_s = max(0.0, record.wall_s - process_s - import_s - init_s - warmup_s - measured_s)
    return LaunchCost(process_s, import_s, init_s, warmup_s, measured_s, other_s)
