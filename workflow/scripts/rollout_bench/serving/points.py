"""Which loads a launch measures: those that are written down, or a search for the rate that a server can bear."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

import numpy as np

from rollout_bench.keeping_up import KEPT_UP, kept_up
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
                yield point.model_copy(update={"request_rate": round(rate / 2**0.5, 3)})
                return
            rate *= 2

    def measured(self, passes: Sequence[Pass]) -> None:
        """Takes the passes of the point that came last."""
        shares = [share for done in passes if (share := _kept_up(done)) is not None]
        self._kept_up = bool(shares) and statistics.median(shares) >= KEPT_UP


def _kept_up(done: Pass) -> float | None:
    """The share of the offered rate at which the requests of a pass came back; None where nothing tells."""
    due = [outcome.due_s for outcome in done.outcomes if outcome.due_s is not None]
    good = [
        (o.sent_s, o.pieces_s[-1]) for o in done.outcomes if o.error is None and o.sent_s is not None and o.pieces_s
    ]
    e2el = [end - sent for sent, end in good]
    rates = kept_up(np.array(due), np.array(e2el), np.array([end for _, end in good]), done.elapsed_s)
    return None if rates is None else rates[1]
