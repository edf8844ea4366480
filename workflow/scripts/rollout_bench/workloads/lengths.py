"""Lengths of prompts and outputs: seeded draws of each distribution, exactly within its bounds.

Every draw inverts the distribution's function at a uniform number, so there is no loop that could go on for ever, and
the n-th length depends on label and n alone. Of the platform only the last bit of the C library's erf, log and exp
has a part in it, which could move one draw in 10^12 by one token.
"""

from __future__ import annotations

import functools
import itertools
import math
from array import array
from bisect import bisect_left
from statistics import NormalDist

from rollout_bench.plan.loads import Length, LogNormal, Normal, Uniform, Zipf
from rollout_bench.workloads.numbers import integers, shares

STANDARD = NormalDist()


def drawn(length: Length, label: str, count: int) -> list[int]:
    """`count` lengths, in tokens.

    Args:
        length: a number, which each of them is then, or a distribution.
        label: what the draws depend on. More draws under one label begin with the same ones.
    """
    if isinstance(length, int):
        return [length] * count
    if isinstance(length, Uniform):
        return [length.low + number % (length.high - length.low + 1) for number in integers(label, count)]
    if isinstance(length, Zipf):
        table = _zipf_table(length.exponent, length.high - length.low + 1)
        return [length.low + bisect_left(table, share * table[-1]) for share in shares(label, count)]
    return [_bell(length, share) for share in shares(label, count)]


def share_within(length: Length) -> float:
    """The part of the distribution that lies within the bounds: the chance that a length needs no second draw."""
    if isinstance(length, Normal | LogNormal):
        below, above = (STANDARD.cdf(edge) for edge in _edges(length))
        return above - below
    return 1.0


def _bell(length: Normal | LogNormal, share: float) -> int:
    """The length at `share` of the distribution between the bounds.

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
    """The bounds in standard deviations from the middle, half a token further out on either side."""
    low, high = length.low - 0.5, length.high + 0.5
    if isinstance(length, Normal):
        return (low - length.mean) / length.std, (high - length.mean) / length.std
    middle = math.log(length.median)
    return (math.log(low) - middle) / length.sigma, (math.log(high) - middle) / length.sigma


@functools.lru_cache(maxsize=4)
def _zipf_table(exponent: float, lengths: int) -> array[float]:
    """Sums of k^-exponent for k from 1 up to 1, 2, ... `lengths`."""
    return array("d", itertools.accumulate(k**-exponent for k in range(1, lengths + 1)))
