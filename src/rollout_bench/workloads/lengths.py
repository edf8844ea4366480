"""Lengths of prompts and outputs: seeded draws that depend only on a label, exactly within their bounds.

Every draw from a bell inverts the distribution function at a uniform number, so no loop can run forever. The n-th
length depends only on label and n.
"""

from __future__ import annotations

import hashlib
import math
from statistics import NormalDist
from typing import TYPE_CHECKING

from rollout_bench.contracts.load import Length, LogNormal, Normal, Uniform

if TYPE_CHECKING:
    from numpy.random import Generator


def generator(label: str) -> Generator:
    """Return the generator of all draws of `label`, whose SHA-256 is the seed."""
    from numpy.random import default_rng  # not at the top: planning draws nothing

    return default_rng(int.from_bytes(hashlib.sha256(label.encode()).digest(), "big"))


def drawn(length: Length, label: str, count: int) -> list[int]:
    """Return `count` lengths, in tokens.

    Args:
        length: a number for all lengths, or a distribution.
        label: determines the draws. A larger count extends the same sequence.
    """
    if isinstance(length, int):
        return [length] * count
    if isinstance(length, Uniform):
        return [int(tokens) for tokens in generator(label).integers(length.low, length.high, count, endpoint=True)]
    bell, below, above = _bell(length)
    if length.beyond == "clipped":
        below, above = 0.0, 1.0
    found = []
    for share in generator(label).random(count).tolist():
        # Kept away from 0 and 1, which have no inverse.
        value = bell.inv_cdf(min(max(below + share * (above - below), 1e-300), 1 - 2**-53))
        tokens = math.floor((_offset(length) + math.exp(value) if isinstance(length, LogNormal) else value) + 0.5)
        found.append(min(max(tokens, length.low), length.high))
    return found


def share_within(length: Normal | LogNormal) -> float:
    """Return the share of the distribution within the bounds."""
    _, below, above = _bell(length)
    return above - below


def _offset(length: LogNormal) -> int:
    return length.offset or 0


def _bell(length: Normal | LogNormal) -> tuple[NormalDist, float, float]:
    """Return the distribution of a length, or of its logarithm, and its shares below the lower and upper bound.

    Rounded lengths from low to high correspond to values from low - 1/2 to high + 1/2, so the distribution is cut
    there. The result is the same as redrawing values outside the bounds.
    """
    low, high = length.low - 0.5, length.high + 0.5
    if isinstance(length, Normal):
        bell = NormalDist(length.mean, length.std)
    else:
        bell = NormalDist(math.log(length.median), length.sigma)
        low, high = math.log(low - _offset(length)), math.log(high - _offset(length))
    return bell, bell.cdf(low), bell.cdf(high)
