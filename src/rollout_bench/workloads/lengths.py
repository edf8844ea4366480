"""Lengths of prompts and outputs: seeded draws that depend only on a label, exactly within their bounds.

Every draw inverts the distribution function at a uniform number, so no loop can run forever. The n-th length depends
only on label and n. The platform only affects the last bit of the C library's erf, log and exp, which could change one
draw in 10^12 by one token.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from array import array
from collections.abc import Iterator
from statistics import NormalDist

from rollout_bench.contracts.load import Length, LogNormal, Normal, Uniform

BLOCK = 512
"""Number of draws in a stream's block."""


def integers(label: str, count: int) -> array[int]:
    """Return the first `count` 64-bit numbers of SHAKE-256 over `label`; a larger count extends the same sequence."""
    return array("Q", hashlib.shake_256(label.encode()).digest(8 * count))


def share(number: int) -> float:
    """Return the uniform number in (0, 1) for a 64-bit number, never 0 or 1.

    It uses the upper 52 bits plus one half, the most that a double holds without rounding up to 1.
    """
    return ((number >> 12) + 0.5) / (1 << 52)


def shares(label: str, count: int) -> list[float]:
    """Return `count` uniform numbers in (0, 1)."""
    return [share(number) for number in integers(label, count)]


def stream(label: str) -> Iterator[float]:
    """Yield uniform numbers in (0, 1) endlessly."""
    for block in itertools.count():
        yield from shares(f"{label}/{block}", BLOCK)


STANDARD = NormalDist()


def drawn(length: Length, label: str, count: int) -> list[int]:
    """Return `count` lengths, in tokens.

    Args:
        length: a number for all lengths, or a distribution.
        label: determines the draws. A larger count extends the same sequence.
    """
    if isinstance(length, int):
        return [length] * count
    if isinstance(length, Uniform):
        return [length.low + number % (length.high - length.low + 1) for number in integers(label, count)]
    return [_bell(length, share) for share in shares(label, count)]


def share_within(length: Length) -> float:
    """Return the share of the distribution within the bounds."""
    if isinstance(length, Normal | LogNormal):
        below, above = (STANDARD.cdf(edge) for edge in _edges(length))
        return above - below
    return 1.0


def _bell(length: Normal | LogNormal, share: float) -> int:
    """Return the length at quantile `share` of the distribution within the bounds.

    Rounded lengths from low to high correspond to values from low - 1/2 to high + 1/2, so the distribution is cut
    there. The result is the same as redrawing values outside the bounds.
    """
    below, above = (STANDARD.cdf(edge) for edge in _edges(length))
    # Kept away from 0 and 1, which rounding could reach and which have no inverse.
    z = STANDARD.inv_cdf(min(max(below + share * (above - below), 1e-300), 1 - 2**-53))
    if isinstance(length, Normal):
        value = length.mean + z * length.std
    else:
        value = math.exp(math.log(length.median) + z * length.sigma)
    return min(max(math.floor(value + 0.5), length.low), length.high)


def _edges(length: Normal | LogNormal) -> tuple[float, float]:
    """Return the bounds in standard deviations from the middle, extended by half a token on each side."""
    low, high = length.low - 0.5, length.high + 0.5
    if isinstance(length, Normal):
        return (low - length.mean) / length.std, (high - length.mean) / length.std
    middle = math.log(length.median)
    return (math.log(low) - middle) / length.sigma, (math.log(high) - middle) / length.sigma
