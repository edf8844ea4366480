"""Which iterations of a launch are warm-up and which count, decided while it runs."""

from __future__ import annotations

from rollout_bench.engines.steadiness import Doubt, judge
from rollout_bench.plan.spec import MeasuringSpec

RESERVE = 2.0
"""Times what further iterations should take that must be left of the launch's time limit."""


class Series:
    """The iterations of a launch so far.

    The planned warm-up is the least. Once as many iterations count as are wanted, the first of them go to the warm-up
    if they belong there, and as many more are run: at most `iterations` more, so that the launch ends.

    Args:
        measuring: how many iterations are planned.
    """

    def __init__(self, measuring: MeasuringSpec) -> None:
        self._measuring = measuring
        self._left = measuring.iterations
        self._counted_s: list[float] = []
        self.index = 0
        """Index of the next iteration."""

    @property
    def complete(self) -> bool:
        """Whether enough iterations count."""
        return len(self._counted_s) >= self._measuring.iterations

    def take(self, elapsed_s: float, left_s: float) -> Doubt | None:
        """Takes the time of the next iteration; `left_s` is what the launch may still take, both in seconds.

        Returns:
            Why the first `more` of those that count so far go to the warm-up; None if none do, or if there is not time
            enough to make up for them: a launch that is measured must not be lost for being lengthened.
        """
        self.index += 1
        if self.index <= self._measuring.warmup_iterations:
            return None
        self._counted_s.append(elapsed_s)
        doubt = judge(self._counted_s) if self.complete else None
        if doubt is None or not 0 < doubt.more <= self._left:
            return None
        if RESERVE * doubt.more * max(self._counted_s) > left_s:
            return None
        del self._counted_s[: doubt.more]
        self._left -= doubt.more
        return doubt
