"""The orders of rounds over all blocks of a comparison: each block goes on where the one before ended."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial

from hypothesis import example, given
from hypothesis import strategies as st

from rollout_bench.measure.launch.rotation import Grant, Rotation, Start
from rollout_bench.measure.launch.turns import Asks
from rollout_bench.plan.order import block_orders, cycle_rounds

SEEDS = st.integers(0, 2**32 - 1)
QUANTS = ["bf16", "w8a8", "w8a16"]


def rounds_of(seed: int, launch: int, names: Sequence[str], rounds: int, group: int = 0) -> list[Sequence[str]]:
    return list(itertools.islice(block_orders(seed, launch, names, group, rounds), rounds))


def before_minus_after(orders: Sequence[Sequence[str]], quant: str) -> int:
    return sum(1 if order.index("bf16") < order.index(quant) else -1 for order in orders)


@given(SEEDS, st.integers(0, 3), st.integers(0, 5))
def test_three_blocks_of_8_rounds_have_the_baseline_as_often_before_as_after_each(
    seed: int, group: int, first: int
) -> None:
    blocks = [rounds_of(seed, 3 * first + launch, QUANTS, 8, group) for launch in range(3)]
    for quant in QUANTS[1:]:
        assert before_minus_after(list(itertools.chain(*blocks)), quant) == 0


@given(SEEDS, st.integers(2, 5), st.integers(1, 12))
@example(seed=1, engines=3, rounds=1)
def test_blocks_together_are_one_sequence_balanced_over_whole_cycles(seed: int, engines: int, rounds: int) -> None:
    names = "abcde"[:engines]
    blocks = cycle_rounds(engines)
    found = [order for launch in range(blocks) for order in rounds_of(seed, launch, names, rounds)]
    assert found == rounds_of(seed, 0, names, blocks * rounds)
    assert len(set(Counter(pair for order in found for pair in itertools.combinations(order, 2)).values())) == 1


def test_a_block_asks_for_orders_with_the_rounds_that_each_group_has() -> None:
    asked: list[tuple[int, int]] = []

    def noted(names: Sequence[str], group: int, rounds: int) -> Iterator[Sequence[str]]:
        asked.append((group, rounds))
        return block_orders(3, 1, names, group, rounds)

    played(Rotation("abc", [None] * 3, noted, 2), passes=9)
    assert asked == [(0, 9), (1, 9)]


def test_the_block_of_the_next_launch_begins_with_the_round_after_the_last() -> None:
    made = []
    for launch in range(3):
        rotation = Rotation("abc", [4] * 3, partial(block_orders, 5, launch), 3)
        played(rotation, passes=4)
        made += rotation.rounds
    assert made == [["abc".index(name) for name in order] for order in rounds_of(5, 0, "abc", 12)]


def played(rotation: Rotation, passes: int) -> None:
    """Play a block of launches without warm-up, whose starts make `passes` passes of each count."""
    made, wanted = Counter[int](), {}
    while not rotation.is_over:
        steps = rotation.steps()
        for step in steps:
            if isinstance(step, Grant):
                made[step.position] += 1
                wanted.setdefault(step.position, step.passes or passes)
            elif not isinstance(step, Start):
                rotation.gone(step.position)
                continue
            if made[step.position] == wanted.get(step.position):
                rotation.finished(step.position)
            else:
                rotation.asked(step.position, Asks(warming_up=False, start_s=2 * passes, pass_s=1, left_s=1e4))
