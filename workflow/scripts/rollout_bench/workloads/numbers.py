"""Random numbers that depend on a label alone: not on the Python, the libraries or the machine that draws them."""

from __future__ import annotations

import hashlib
import itertools
from array import array
from collections.abc import Iterator

BLOCK = 512
"""Numbers that a stream draws at a time."""


def integers(label: str, count: int) -> array[int]:
    """The first `count` 64-bit numbers of SHAKE-256 over `label`; more of them begin with the same ones."""
    return array("Q", hashlib.shake_256(label.encode()).digest(8 * count))


def share(number: int) -> float:
    """The uniform number in (0, 1) that a 64-bit number stands for: never 0 and never 1.

    The upper 52 bits and a half: all that a double holds without rounding up to 1.
    """
    return ((number >> 12) + 0.5) / (1 << 52)


def shares(label: str, count: int) -> list[float]:
    """`count` uniform numbers in (0, 1)."""
    return [share(number) for number in integers(label, count)]


def stream(label: str) -> Iterator[float]:
    """Uniform numbers in (0, 1) without end."""
    for block in itertools.count():
        yield from shares(f"{label}/{block}", BLOCK)
