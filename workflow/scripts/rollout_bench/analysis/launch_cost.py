"""What the time of one launch went to."""

from __future__ import annotations

from dataclasses import dataclass

from rollout_bench.records.record import Record


@dataclass(frozen=True)
class LaunchCost:
    """Seconds of one launch, by part.

    Args:
        process_s: until the engine process ran; 0 in records that don't say, where it is in `other_s`.
        import_s: importing the engine.
        init_s: constructing it; what the engine logged of this is in the record's `startup.reported`.
        warmup_s: warm-up iterations.
        measured_s: iterations that count.
        other_s: what lies between: looking at the loaded weights and at the machine, preparing iterations.
    """

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
    """The parts of a launch, which add up to its `wall_s`; `other_s` is never negative."""
    process_s, import_s, init_s = record.startup.process_s or 0.0, record.startup.import_s, record.startup.init_s
    warmup_s = sum(iteration.elapsed_s for iteration in record.iterations if iteration.warmup)
    measured_s = sum(iteration.elapsed_s for iteration in record.iterations if not iteration.warmup)
    known_s = process_s + import_s + init_s + warmup_s + measured_s
    return LaunchCost(process_s, import_s, init_s, warmup_s, measured_s, max(0.0, record.wall_s - known_s))
