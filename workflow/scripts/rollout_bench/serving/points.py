"""Which loads a launch measures: those that are written down, or a search for the rate that a server can bear."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

from rollout_bench.plan.loads import LoadPoint, LoadSpec

KEEPS_UP = 0.95
"""Share of the offered rate that a server delivers as long as it keeps up; a Poisson process leaves 5 % open."""

MOST_DOUBLINGS = 16


class Points:
    """The points of one launch, in the order they are measured.

    A search doubles the rate until the server no longer keeps up, then measures the rate between the last two: half
    way on the logarithmic scale. Rates are therefore on one grid for every quantization, and can be compared.
    """

    def __init__(self, load: LoadSpec) -> None:
        self._load = load
        self._kept_up = True

    def __iter__(self) -> Iterator[LoadPoint]:
        if self._load.saturation is None:
            yield from self._load.points
            return
        point = self._load.points[0]
        rate = float(point.request_rate)
        for _ in range(MOST_DOUBLINGS):
            yield point.model_copy(update={"request_rate": rate})
            if not self._kept_up:
                yield point.model_copy(update={"request_rate": round(rate / 2**0.5, 3)})
                return
            rate *= 2

    def measured(self, point: LoadPoint, delivered: Sequence[float | None]) -> None:
        """Takes the rates delivered in the passes of `point`, in requests per second; None where nobody can say."""
        known = [rate for rate in delivered if rate is not None]
        offered = point.request_rate
        self._kept_up = isinstance(offered, float) and bool(known) and statistics.median(known) >= KEEPS_UP * offered


def delivered_per_s(ends_s: Sequence[float]) -> float | None:
    """Requests per second that a server finished, from when each ended; None for fewer than three.

    (n - 1) / (last - first): neither the latency of the first nor the tail of the last counts, so that a server that
    keeps up delivers what is offered however long each request takes.
    """
    if len(ends_s) < 3 or max(ends_s) <= min(ends_s):
        return None
    return (len(ends_s) - 1) / (max(ends_s) - min(ends_s))
