"""Router policies: which engine gets a sequence, whatever engines and prompts there are."""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout_bench.contracts.spec import RouterPolicy
from rollout_bench.measure.routing.policies import (
    BALANCE,
    BLOCK,
    POLICIES,
    SLACK,
    Ask,
    Balancer,
    Fleet,
    beginnings_of,
    least_in_flight,
)
from rollout_bench.workloads.lengths import stream

ENGINES = st.integers(1, 16)
NAMES = list(POLICIES)


def prompt_of(number: int, tokens: int = 3 * BLOCK) -> list[int]:
    return [100 + number, *range(tokens - 1)]


def handed_out(policy: RouterPolicy, engines: int, prompts: int, samples: int, label: str = "") -> list[list[int]]:
    """Return for each prompt the engines of its samples, where nothing ends meanwhile."""
    balancer = Balancer(policy, engines, stream(label))
    return [[balancer.choose(prompt, prompt_of(prompt)) for _ in range(samples)] for prompt in range(prompts)]


@pytest.mark.parametrize("policy", NAMES)
@given(engines=ENGINES, ends=st.lists(st.booleans(), min_size=1, max_size=60))
def test_each_engine_is_one_of_them_and_the_same_again(policy: RouterPolicy, engines: int, ends: list[bool]) -> None:
    def choices() -> list[int]:
        balancer, found = Balancer(policy, engines, stream("a")), list[int]()
        for number, end in enumerate(ends):
            found.append(balancer.choose(number // 3, prompt_of(number // 3)))
            if end:
                balancer.ended(found[-1])
        assert sum(balancer.in_flight) == ends.count(False)
        return found

    first = choices()
    assert set(first) <= set(range(engines))
    assert first == choices()


@given(counts=st.lists(st.integers(0, 5), min_size=1, max_size=8))
def test_least_in_flight_is_the_first_of_those_with_the_fewest(counts: list[int]) -> None:
    assert least_in_flight(Ask(0), Fleet(counts)) == counts.index(min(counts))


@pytest.mark.parametrize("policy", ["least_in_flight", "round_robin"])
@given(engines=ENGINES, prompts=st.integers(1, 20), samples=st.integers(1, 9))
def test_engines_get_as_many_while_nothing_ends(policy: RouterPolicy, engines: int, prompts: int, samples: int) -> None:
    counts = Counter(itertools.chain(*handed_out(policy, engines, prompts, samples)))
    assert max(counts.values()) - min(counts[engine] for engine in range(engines)) <= 1


def test_round_robin_does_not_ask_what_is_under_way() -> None:
    balancer = Balancer("round_robin", 3, stream(""))
    balancer.in_flight = [100, 0, 100]
    assert [balancer.choose(0, [1]) for _ in range(4)] == [0, 1, 2, 0]


@given(engines=ENGINES, prompts=st.integers(1, 20), samples=st.integers(1, 9))
def test_sticky_keeps_the_samples_of_a_prompt_together_and_spreads_prompts(
    engines: int, prompts: int, samples: int
) -> None:
    found = handed_out("sticky", engines, prompts, samples)
    assert all(len(set(of_prompt)) == 1 for of_prompt in found)
    counts = Counter(of_prompt[0] for of_prompt in found)
    assert max(counts.values()) - min(counts[engine] for engine in range(engines)) <= 1


@given(engines=ENGINES, prompts=st.integers(1, 30))
def test_prefix_aware_is_least_in_flight_where_no_prompts_begin_alike(engines: int, prompts: int) -> None:
    assert handed_out("prefix_aware", engines, prompts, 1) == handed_out("least_in_flight", engines, prompts, 1)


def test_prefix_aware_follows_the_longest_beginning() -> None:
    balancer = Balancer("prefix_aware", 2, stream(""))
    short, long = prompt_of(0, 2 * BLOCK), prompt_of(0, 6 * BLOCK)
    other = prompt_of(1)
    assert [balancer.choose(0, short), balancer.choose(1, other)] == [0, 1]
    assert balancer.choose(2, long) == 0  # which has seen two blocks of it
    assert balancer.choose(3, other) == 1


@given(engines=st.integers(2, 8), samples=st.integers(20, 200))
def test_prefix_aware_leaves_an_engine_that_has_far_more_to_do(engines: int, samples: int) -> None:
    (found,) = handed_out("prefix_aware", engines, 1, samples)
    counts = Counter(found)
    assert max(counts.values()) <= BALANCE * samples / engines + SLACK + 1


@given(st.lists(st.integers(0, 3), max_size=5 * BLOCK), st.lists(st.integers(0, 3), max_size=5 * BLOCK))
def test_two_prompts_share_as_many_hashes_as_whole_blocks(one: list[int], other: list[int]) -> None:
    common = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    shared = sum(a == b for a, b in zip(beginnings_of(one), beginnings_of(other), strict=False))
    assert shared == common // BLOCK
    assert len(beginnings_of(one)) == len(one) // BLOCK


@pytest.mark.parametrize(("engines", "prompts", "samples"), [(8, 256, 8), (2, 64, 4), (4, 100, 1)])
def test_a_random_router_gives_an_engine_as_many_distinct_prompts_as_chance_says(
    engines: int, prompts: int, samples: int
) -> None:
    """P (1 - (1 - 1/R)^n) of the step's prompts, within four standard deviations of a binomial number."""
    found = handed_out("random", engines, prompts, samples, "seed/0/0")
    share = 1 - (1 - 1 / engines) ** samples
    prompts_of = defaultdict(set)
    for prompt, of_prompt in enumerate(found):
        for engine in of_prompt:
            prompts_of[engine].add(prompt)
    for engine in range(engines):
        off = abs(len(prompts_of[engine]) - prompts * share)
        assert off <= 4 * math.sqrt(prompts * share * (1 - share)) + 1e-9
