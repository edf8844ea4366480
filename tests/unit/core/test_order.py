"""The order within rounds and over blocks: balanced, drawn by a seed, the same everywhere."""

import itertools
from collections import Counter
from collections.abc import Sequence
from itertools import combinations, pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from rollout_bench.core.order import block_orders, cycle_rounds, design_rows, round_orders, williams_row

SEEDS = st.integers(0, 2**32 - 1)


@given(st.integers(1, 30))
def test_a_whole_design_balances_places_predecessors_and_neighbours(treatments: int) -> None:
    rows = [williams_row(treatments, row) for row in range(design_rows(treatments))]
    assert all(sorted(row) == list(range(treatments)) for row in rows)
    pairs = treatments * (treatments - 1)
    places = Counter((place, name) for row in rows for place, name in enumerate(row))
    assert set(places.values()) == {len(rows) // treatments}
    before = Counter(pair for row in rows for pair in combinations(row, 2))
    assert before == dict.fromkeys(before, len(rows) // 2)
    followed = Counter(pair for row in rows for pair in pairwise(row))
    assert (len(before), len(followed), len(set(followed.values()))) == (pairs, pairs, min(pairs, 1))


@given(st.integers(1, 9), st.integers(1, 3), SEEDS)
def test_whole_cycles_of_rounds_are_balanced(names: int, times: int, seed: int) -> None:
    orders = list(round_orders(map(str, range(names)), times * cycle_rounds(names), seed))
    followed = Counter(pair for order in orders for pair in pairwise(order))
    assert len(followed) == names * (names - 1)
    assert len(set(followed.values())) <= 1


@given(st.sets(st.text(min_size=1, max_size=3), max_size=7), st.integers(0, 20), SEEDS, st.randoms())
def test_the_order_depends_on_the_seed_and_the_names_alone(
    names: set[str], rounds: int, seed: int, random: object
) -> None:
    random.shuffle(shuffled := sorted(names))  # type: ignore[attr-defined]
    orders = list(round_orders(shuffled, rounds, seed))
    assert (orders, [sorted(order) for order in orders]) == (
        list(round_orders(names, rounds, seed)),
        [sorted(names)] * rounds,
    )
    assert list(round_orders(names, rounds + 3, seed))[:rounds] == orders


def test_seeds_draw_every_first_round_equally_often() -> None:
    first = Counter(next(round_orders(["bf16", "w8a8", "w8a16"], 1, seed)) for seed in range(600))
    assert len(first) == 6
    assert min(first.values()) > 60


def test_rounds_reverse_each_other_no_more_often_than_chance() -> None:
    # Then what runs last in a round and first in the next would make their pairs resemble each other.
    for names, expected in (("ab", 3 / 5), ("abcd", 2 / 7)):
        pairs = [pair for seed in range(400) for pair in pairwise(round_orders(names, cycle_rounds(len(names)), seed))]
        backwards = sum(one == other[::-1] for one, other in pairs) / len(pairs)
        assert abs(backwards - expected) < 0.04


def test_the_order_is_the_same_on_every_machine() -> None:
    assert " ".join("".join(order) for order in round_orders("abc", 6, 1)) == "bca bac acb cba cab abc"


def rounds_of(seed: int, launch: int, names: Sequence[str], rounds: int) -> list[Sequence[str]]:
    return list(itertools.islice(block_orders(seed, launch, names, rounds), rounds))


@given(SEEDS, st.integers(2, 5), st.integers(1, 12))
@example(seed=1, engines=3, rounds=1)
def test_blocks_together_are_one_sequence_balanced_over_whole_cycles(seed: int, engines: int, rounds: int) -> None:
    names = "abcde"[:engines]
    blocks = cycle_rounds(engines)
    found = [order for launch in range(blocks) for order in rounds_of(seed, launch, names, rounds)]
    assert found == rounds_of(seed, 0, names, blocks * rounds)
    assert len(set(Counter(pair for order in found for pair in itertools.combinations(order, 2)).values())) == 1
