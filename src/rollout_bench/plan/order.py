"""The balanced order within each round: of launches, or of passes."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

Thing = TypeVar("Thing")

LEAST_ROUNDS = 6
"""Fewer different rounds in a cycle make too many neighbouring ones each other's reverse: of two experiments, all."""


def williams_row(treatments: int, row: int) -> tuple[int, ...]:
    """Return one row of a Williams design of `treatments`: a permutation of 0 to `treatments` - 1.

    The design has `design_rows(treatments)` rows. Over all of them each treatment stands in each place equally often,
    before any other as often as after it, and right after any other equally often, so that what a launch leaves to the
    next one (heat, clocks, caches) and a machine that becomes slower hit all alike (Williams, "Experimental designs
    balanced for the estimation of residual effects of treatments", Australian Journal of Scientific Research A 2,
    1949). Of an odd number the second half of the rows is the first one backwards.
    """
    first = ((place + 1) // 2 if place % 2 else -(place // 2) for place in range(treatments))
    shifted = tuple((step + row) % treatments for step in first)
    return shifted if row < treatments else shifted[::-1]


def design_rows(treatments: int) -> int:
    """Return how many rows a Williams design has: `treatments` where they are even or one, else twice as many."""
    return treatments if treatments % 2 == 0 or treatments == 1 else 2 * treatments


def cycle_rounds(treatments: int) -> int:
    """Return after how many rounds the orders are balanced: a whole design, or several up to `LEAST_ROUNDS`."""
    rows = design_rows(treatments)
    return rows * -(-LEAST_ROUNDS // rows)


def round_orders(names: Iterable[str], rounds: int | None, seed: int) -> Iterator[tuple[str, ...]]:
    """Yield the order of `names` in each of `rounds` rounds; None: without end.

    The rows of the design follow in an order that `seed` draws, all of them before any comes again, and `seed` also
    draws which name is which treatment. Rows in their own order would make neighbouring rounds alike, and so would
    every other round backwards: then pairs resemble each other when the machine drifts.
    """
    labels = _shuffled(names, f"{seed}")
    cycle_length = cycle_rounds(max(len(labels), 1))
    for index in itertools.count() if rounds is None else range(rounds):
        cycle, place = divmod(index, cycle_length)
        if place == 0:
            drawn = _shuffled(range(cycle_length), f"{seed} {cycle}")
        row = drawn[place] % design_rows(max(len(labels), 1))
        yield tuple(labels[treatment] for treatment in williams_row(len(labels), row))


def block_orders(seed: int, launch: int, names: Sequence[str], group: int, rounds: int) -> Iterator[tuple[str, ...]]:
    """Yield the order of passes in each round of a block, without end.

    A block is seldom a whole cycle of the design. All blocks of a comparison together are, since they share one
    sequence, and block i begins at its round i x `rounds`, where the one before ended.

    Args:
        seed: draws the sequence, with `group`.
        launch: index of the launches in the block.
        names: of the engines, those of the group.
        group: number of the group of engines that are alive together.
        rounds: how many the group makes in this block.
    """
    drawn = hashlib.sha256(f"{seed} {group}".encode()).digest()
    return itertools.islice(round_orders(names, None, int.from_bytes(drawn[:8])), launch * rounds, None)


def _shuffled(things: Iterable[Thing], key: str) -> list[Thing]:
    return sorted(things, key=lambda thing: hashlib.sha256(f"{key} {thing}".encode()).digest())
