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
        first: index of the first, where a launch has several series.
        may_extend: whether the warm-up may become longer than planned.
    """

    def __init__(self, measuring: MeasuringSpec, first: int = 0, *, may_extend: bool = True) -> None:
        self._measuring = measuring
        self._left = measuring.iterations if may_extend else 0
        self._counted_s: list[float] = []
        self._first = first
        self.index = first
        """Index of the next iteration."""
        self.dropped: list[int] = []
        """Indices of those that went to the warm-up last."""

    @property
    def warming_up(self) -> bool:
        """Whether the next iteration is one of the planned warm-up."""
        return self.index < self._first + self._measuring.warmup_iterations

    @property
    def phase_begins(self) -> bool:
        """Whether the next iteration is the first of the planned warm-up, or of those that may count."""
        return self.index in (self._first, self._first + self._measuring.warmup_iterations)

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
        warming_up = self.warming_up
        self.index += 1
        if warming_up:
            return None
        self._counted_s.append(elapsed_s)
        doubt = judge(self._counted_s) if self.complete else None
        if doubt is None or not 0 < doubt.more <= self._left:
            return None
        if RESERVE * doubt.more * max(self._counted_s) > left_s:
            return None
        counted = self.index - len(self._counted_s)
        self.dropped = list(range(counted, counted + doubt.more))
        del self._counted_s[: doubt.more]
        self._left -= doubt.more
        return doubt
