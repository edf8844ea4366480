"""Lengths of prompts and outputs: seeded draws that depend on a label alone, exactly within their bounds.

Every draw inverts the distribution's function at a uniform number, so there is no loop that could go on for ever, and
the n-th length depends on label and n alone. Of the platform only the last bit of the C library's erf, log and exp
has a part in it, which could move one draw in 10^12 by one token.
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
"""Numbers that a stream draws at a time."""


def integers(label: str, count: int) -> array[int]:
    """Return the first `count` 64-bit numbers of SHAKE-256 over `label`; more of them begin with the same ones."""
    return array("Q", hashlib.shake_256(label.encode()).digest(8 * count))


def share(number: int) -> float:
    """Return the uniform number in (0, 1) that a 64-bit number stands for: never 0 and never 1.

    The upper 52 bits and a half: all that a double holds without rounding up to 1.
    """
    return ((number >> 12) + 0.5) / (1 << 52)


def shares(label: str, count: int) -> list[float]:
    """Return `count` uniform numbers in (0, 1)."""
    return [share(number) for number in integers(label, count)]


def stream(label: str) -> Iterator[float]:
    """Uniform numbers in (0, 1) without end."""
    for block in itertools.count():
        yield from shares(f"{label}/{block}", BLOCK)


STANDARD = NormalDist()


def drawn(length: Length, label: str, count: int) -> list[int]:
    """Return `count` lengths, in tokens.

    Args:
        length: a number, which each of them is then, or a distribution.
        label: what the draws depend on. More draws under one label begin with the same ones.
    """
    if isinstance(length, int):
        return [length] * count
    if isinstance(length, Uniform):
        return [length.low + number % (length.high - length.low + 1) for number in integers(label, count)]
    return [_bell(length, share) for share in shares(label, count)]


def share_within(length: Length) -> float:
    """Return the part of the distribution that lies within the bounds.

    The chance that a length needs no second draw.
    """
    if isinstance(length, Normal | LogNormal):
        below, above = (STANDARD.cdf(edge) for edge in _edges(length))
        return above - below
    return 1.0


def _bell(length: Normal | LogNormal, share: float) -> int:
    """Return the length at `share` of the distribution between the bounds.

    Rounded lengths from low to high are those whose value lies from low - 1/2 to high + 1/2, so that is where the
    distribution is cut: the same as drawing again whatever falls outside, without ever drawing again.
    """
    below, above = (STANDARD.cdf(edge) for edge in _edges(length))
    # Held off 0 and 1, where there is no inverse and rounding could lead.
    z = STANDARD.inv_cdf(min(max(below + share * (above - below), 1e-300), 1 - 2**-53))
    if isinstance(length, Normal):
        value = length.mean + z * length.std
    else:
        value = math.exp(math.log(length.median) + z * length.sigma)
    return min(max(math.floor(value + 0.5), length.low), length.high)


def _edges(length: Normal | LogNormal) -> tuple[float, float]:
    """Return the bounds in standard deviations from the middle, half a token further out on either side."""
    low, high = length.low - 0.5, length.high + 0.5
    if isinstance(length, Normal):
        return (low - length.mean) / length.std, (high - length.mean) / length.std
    middle = math.log(length.median)
    return (math.log(low) - middle) / length.sigma, (math.log(high) - middle) / length.sigma
