"""Router policies: which engine gets a sequence, whatever engines and prompts there are."""

import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout_bench.modes.rollout.policies import (
    POLICIES,
    Balancer,
)
from rollout_bench.modes.rollout.settings import RouterPolicy

ENGINES = st.integers(1, 16)
NAMES = list(POLICIES)


def handed_out(policy: RouterPolicy, engines: int, prompts: int, samples: int) -> list[list[int]]:
    """Return for each prompt the engines of its samples, where nothing ends meanwhile."""
    balancer = Balancer(policy, engines)
    return [[balancer.choose(prompt) for _ in range(samples)] for prompt in range(prompts)]


@pytest.mark.parametrize("policy", NAMES)
@given(engines=ENGINES, ends=st.lists(st.booleans(), min_size=1, max_size=60))
def test_each_engine_is_one_of_them_and_the_same_again(policy: RouterPolicy, engines: int, ends: list[bool]) -> None:
    def choices() -> list[int]:
        balancer, found = Balancer(policy, engines), list[int]()
        for number, end in enumerate(ends):
            found.append(balancer.choose(number // 3))
            if end:
                balancer.ended(found[-1])
        assert sum(balancer.in_flight) == ends.count(False)
        return found

    first = choices()
    assert set(first) <= set(range(engines))
    assert first == choices()


@pytest.mark.parametrize("policy", ["least_in_flight", "round_robin"])
@given(engines=ENGINES, prompts=st.integers(1, 20), samples=st.integers(1, 9))
def test_engines_get_as_many_while_nothing_ends(policy: RouterPolicy, engines: int, prompts: int, samples: int) -> None:
    counts = Counter(itertools.chain(*handed_out(policy, engines, prompts, samples)))
    assert max(counts.values()) - min(counts[engine] for engine in range(engines)) <= 1


@given(engines=ENGINES, prompts=st.integers(1, 20), samples=st.integers(1, 9))
def test_sticky_keeps_samples_together_and_spreads_prompts(engines: int, prompts: int, samples: int) -> None:
    found = handed_out("sticky", engines, prompts, samples)
    assert all(len(set(of_prompt)) == 1 for of_prompt in found)
    counts = Counter(of_prompt[0] for of_prompt in found)
    assert max(counts.values()) - min(counts[engine] for engine in range(engines)) <= 1
