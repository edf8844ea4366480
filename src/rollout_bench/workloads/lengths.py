"""Lengths of prompts and outputs: seeded draws that depend only on a label, exactly within their bounds.

Every draw from a bell inverts the distribution function at a uniform number, so no loop can run forever. The n-th
length depends only on label and n.
"""

from __future__ import annotations

import hashlib
import math
from statistics import NormalDist

from numpy.random import Generator, default_rng

from rollout_bench.contracts.load import Length, LogNormal, Normal, Uniform


def generator(label: str) -> Generator:
    """Return the generator of all draws of `label`, whose SHA-256 is the seed."""
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
    bell, (below, above) = _bell(length), _shares_below(length)
    found = []
    for share in generator(label).random(count).tolist():
        # Kept away from 0 and 1, which have no inverse.
        value = bell.inv_cdf(min(max(below + share * (above - below), 1e-300), 1 - 2**-53))
        tokens = math.floor((math.exp(value) if isinstance(length, LogNormal) else value) + 0.5)
        found.append(min(max(tokens, length.low), length.high))
    return found


def share_within(length: Length) -> float:
    """Return the share of the distribution within the bounds."""
    if not isinstance(length, Normal | LogNormal):
        return 1.0
    below, above = _shares_below(length)
    return above - below


def _bell(length: Normal | LogNormal) -> NormalDist:
    """Return the distribution of a length, or of its logarithm."""
    if isinstance(length, Normal):
        return NormalDist(length.mean, length.std)
    return NormalDist(math.log(length.median), length.sigma)


def _shares_below(length: Normal | LogNormal) -> tuple[float, float]:
    """Return the shares of the distribution below its lower and its upper bound.

    Rounded lengths from low to high correspond to values from low - 1/2 to high + 1/2, so the distribution is cut
    there. The result is the same as redrawing values outside the bounds.
    """
    low, high = length.low - 0.5, length.high + 0.5
    if isinstance(length, LogNormal):
        low, high = math.log(low), math.log(high)
    return _bell(length).cdf(low), _bell(length).cdf(high)
