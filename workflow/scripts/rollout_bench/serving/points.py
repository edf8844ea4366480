"""Which loads a launch measures: those that are written down, or a search for the rate that a server can bear."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from rollout_bench.keeping_up import KEPT_UP, Arrivals, kept_up
from rollout_bench.plan.loads import LoadPoint, LoadSpec
from rollout_bench.serving.target import Pass

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
                yield point.model_copy(update={"request_rate": float(f"{rate / 2**0.5:.4g}")})
                return
            rate *= 2

    def measured(self, passes: Sequence[Pass]) -> None:
        """Takes the passes of the point that came last; one that can't tell ends a search, too."""
        rates = kept_up([_arrivals(done) for done in passes])
        self._kept_up = rates is not None and rates[1] >= KEPT_UP


def _arrivals(done: Pass) -> Arrivals:
    due = [outcome.due_s for outcome in done.outcomes if outcome.due_s is not None]
    good = [outcome for outcome in done.outcomes if outcome.error is None and outcome.pieces_s]
    ends = np.array([outcome.pieces_s[-1] for outcome in good])
    sent = np.array([outcome.sent_s for outcome in good], dtype=float)
    return Arrivals(np.array(due), ends - sent, ends, done.elapsed_s)
