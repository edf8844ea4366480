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

RESERVE = 1.5
"""Times what a pass took that has to be left for each."""


def passes_of(starts_s: Sequence[float], passes_s: Sequence[float], left_s: float) -> int:
    """Return how many passes are to count.

    Args:
        starts_s: for how long each engine of the block started, in seconds.
        passes_s: how long the last warm-up pass of each took, in seconds.
        left_s: how long the launch may still take, in seconds; there are fewer passes than `FEWEST`, but one, where it
            leaves no time for more.
    """
    round_s = sum(passes_s)
    wanted = min(max(round(SHARE * sum(starts_s) / round_s), FEWEST), MOST)
    return max(1, min(wanted, math.floor(left_s / (RESERVE * round_s))))
