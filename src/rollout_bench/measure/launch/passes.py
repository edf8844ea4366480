"""Number of passes that count for `iterations: auto`, from the time that starting takes. Pure functions.

A launch pays once for the time from its start to its first pass. The passes that count together take about half of this
time. So the measured time is worth the start, and the spread within a launch is not much larger than between launches.
The number is fixed before any pass counts: stopping at a pleasing spread would stop before the slow passes come.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

FEWEST = 8
"""Minimum number of passes that count; fewer do not allow a trimmed mean."""

MOST = 32
"""Maximum number of passes that count; beyond it, another launch adds more information per second."""

SHARE = 0.5
"""Total time of the passes that count, as a share of the start time."""

SHORTEST_S = 1e-6
"""Lower bound for the duration of a pass, to avoid a division by zero."""

OF_TIME = 0.8
"""Share of the remaining time available to passes, since some are slower than the last warm-up pass."""


def passes_of(starts_s: Sequence[float], passes_s: Sequence[float], left_s: Sequence[float]) -> int:
    """Return the number of passes that count for each engine of a block, or for a single engine.

    Args:
        starts_s: time from start to first pass of each engine, in seconds; only the longest if the engines started
            together.
        passes_s: duration of the last warm-up pass of each engine, in seconds.
        left_s: remaining time of each engine, in seconds. If it is too short for `FEWEST` passes, the result is
            smaller, but at least 1.
    """
    wanted = min(max(round(SHARE * sum(starts_s) / max(sum(passes_s), SHORTEST_S)), FEWEST), MOST)
    return min(wanted, *(fitting(*of) for of in zip(passes_s, left_s, strict=True)))


def fitting(pass_s: float, left_s: float) -> int:
    """Return how many passes of `pass_s` seconds fit into `left_s` seconds, at least one."""
    return max(1, math.floor(OF_TIME * left_s / max(pass_s, SHORTEST_S)))
