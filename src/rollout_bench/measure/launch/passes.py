"""How many passes count where `iterations: auto` leaves it to the time that starting takes. Pure functions.

The time from a launch's beginning to its first pass is paid once. As many passes as take half of it make the
measured time worth that price, and a spread inside the launch that is not much larger than between launches. The
number is fixed before any pass counts: whoever stops at a spread that he likes stops before the slow passes come.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

FEWEST = 8
"""Passes that count, at the least: below it a trimmed mean is none."""

MOST = 32
"""Passes that count, at most: beyond it a launch brings nothing that another launch would not bring sooner."""

SHARE = 0.5
"""Share of the time that starting took that passes which count are to take."""

SHORTEST_S = 1e-6
"""A pass that is shorter has no length."""

OF_TIME = 0.8
"""Share of a launch's remaining time that its passes may take: some are slower than the last of the warm-up."""


def passes_of(starts_s: Sequence[float], passes_s: Sequence[float], left_s: Sequence[float]) -> int:
    """Return how many passes are to count of each engine that shares a block; of one alone, of that one.

    Args:
        starts_s: how long each engine took from its beginning to its first pass, in seconds; of engines that started
            together only the longest.
        passes_s: how long the last warm-up pass of each took, in seconds.
        left_s: how long each may still take, in seconds. Where that is too little there are fewer passes than
            `FEWEST`, but one.
    """
    wanted = min(max(round(SHARE * sum(starts_s) / max(sum(passes_s), SHORTEST_S)), FEWEST), MOST)
    return min(wanted, *(fitting(*of) for of in zip(passes_s, left_s, strict=True)))


def fitting(pass_s: float, left_s: float) -> int:
    """Return how many passes of `pass_s` seconds fit into what is left, at least one."""
    return max(1, math.floor(OF_TIME * left_s / max(pass_s, SHORTEST_S)))
