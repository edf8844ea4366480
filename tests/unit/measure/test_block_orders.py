"""The orders of rounds over all blocks of a comparison: each block goes on where the one before ended."""

import itertools
from collections import Counter
from collections.abc import Sequence

from hypothesis import example, given
from hypothesis import strategies as st

from rollout_bench.plan.order import block_orders, cycle_rounds

SEEDS = st.integers(0, 2**32 - 1)
QUANTS = ["bf16", "w8a8", "w8a16"]


def rounds_of(seed: int, launch: int, names: Sequence[str], rounds: int) -> list[Sequence[str]]:
    return list(itertools.islice(block_orders(seed, launch, names, rounds), rounds))


def before_minus_after(orders: Sequence[Sequence[str]], quant: str) -> int:
    return sum(1 if order.index("bf16") < order.index(quant) else -1 for order in orders)


@given(SEEDS, st.integers(0, 5))
def test_three_blocks_of_8_rounds_balance_the_baseline_with_each(seed: int, first: int) -> None:
    blocks = [rounds_of(seed, 3 * first + launch, QUANTS, 8) for launch in range(3)]
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
