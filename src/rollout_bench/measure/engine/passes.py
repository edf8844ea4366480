"""The iterations of a launch, which every mode that repeats them makes alike."""

from __future__ import annotations

from collections.abc import Iterator

from rollout_bench.contracts.spec import MeasuringSpec
from rollout_bench.measure.launch.protocol import PhaseBegins, Tell


def passes(measuring: MeasuringSpec, tell: Tell, first: int = 0) -> Iterator[tuple[int, bool]]:
    """Yield the index of each iteration and whether it belongs to the warm-up; send each phase as it begins.

    The warm-up has its planned length: lengthening it after seeing the times would bias the mean, by 0.5 % if some
    passes are delayed, by 2 % if passes become faster.

    Args:
        measuring: the numbers of iterations.
        tell: sends an event.
        first: index of the first iteration, if a launch has several loads.
    """
    for number in range(measuring.warmup_iterations + measuring.iterations):
        warmup = number < measuring.warmup_iterations
        if number in (0, measuring.warmup_iterations):
            tell(PhaseBegins(phase="warmup" if warmup else "measuring"))
        yield first + number, warmup
