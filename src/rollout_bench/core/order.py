"""The balanced order of launches or iterations within each round."""

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

Thing = TypeVar("Thing")

LEAST_ROUNDS = 6
"""Minimum rounds in a cycle: with fewer, too many neighbouring rounds are each other's reverse (for two names, all)."""


def williams_row(treatments: int, row: int) -> tuple[int, ...]:
    """Return one row of a Williams design of `treatments`: a permutation of 0 to `treatments` - 1.

    The design has `design_rows(treatments)` rows. Over all rows, each treatment is equally often in each place,
    equally often before and after any other, and equally often immediately after any other. So after-effects of a
    launch (heat, clocks, caches) and a machine that slows down affect all alike (Williams, "Experimental designs
    balanced for the estimation of residual effects of treatments", Australian Journal of Scientific Research A 2,
    1949). For an odd number, the second half of the rows is the first half reversed.
    """
    first = ((place + 1) // 2 if place % 2 else -(place // 2) for place in range(treatments))
    shifted = tuple((step + row) % treatments for step in first)
    return shifted if row < treatments else shifted[::-1]


def design_rows(treatments: int) -> int:
    """Return the number of rows of a Williams design: `treatments` if even or one, else twice as many."""
    return treatments if treatments % 2 == 0 or treatments == 1 else 2 * treatments


def cycle_rounds(treatments: int) -> int:
    """Return the number of rounds after which the orders are balanced: one design, or several up to `LEAST_ROUNDS`."""
    rows = design_rows(treatments)
    return rows * -(-LEAST_ROUNDS // rows)


def round_orders(names: Iterable[str], rounds: int | None, seed: int) -> Iterator[tuple[str, ...]]:
    """Yield the order of `names` in each of `rounds` rounds; None: without end.

    `seed` draws the order of the design's rows; all rows are used before any is repeated. It also assigns names to
    treatments. With rows in their own order, or with every other round reversed, neighbouring rounds would be similar.
    Then pairs would resemble each other if the machine drifts.
    """
    labels = _shuffled(names, f"{seed}")
    cycle_length = cycle_rounds(max(len(labels), 1))
    for index in itertools.count() if rounds is None else range(rounds):
        cycle, place = divmod(index, cycle_length)
        if place == 0:
            drawn = _shuffled(range(cycle_length), f"{seed} {cycle}")
        row = drawn[place] % design_rows(max(len(labels), 1))
        yield tuple(labels[treatment] for treatment in williams_row(len(labels), row))


def block_orders(seed: int, launch: int, names: Sequence[str], rounds: int) -> Iterator[tuple[str, ...]]:
    """Yield the order of iterations in each round of a block, without end.

    A block is seldom a whole cycle of the design, but all blocks of a comparison together are. They share one
    sequence, in which block i begins at round i x `rounds`, after the previous block.

    Args:
        seed: draws the sequence.
        launch: index of the launches in the block.
        names: names of the engines.
        rounds: rounds of this block.
    """
    drawn = hashlib.sha256(f"{seed} rounds".encode()).digest()
    return itertools.islice(round_orders(names, None, int.from_bytes(drawn[:8])), launch * rounds, None)


def _shuffled(things: Iterable[Thing], key: str) -> list[Thing]:
    return sorted(things, key=lambda thing: hashlib.sha256(f"{key} {thing}".encode()).digest())
