"""Prompts of one group begin alike, nothing else does, and what a prefix cache can hold of them is known."""

from hypothesis import given
from hypothesis import strategies as st
from made_workloads import workload

from rollout_bench.workloads.requests import Request, Source, prefixes, prompts, sharing

UNIFORM = {"distribution": "uniform", "low": 13, "high": 40}


def test_prompts_take_the_prefixes_in_turn_and_go_on_differently():
    load = workload(prompts=6, prompt_tokens=UNIFORM, shared_prefix={"tokens": 12, "groups": 2})
    found, shared = prompts(load, 2048, 0, 1), prefixes(load, 2048, 0, 1)
    assert [prompt[:12] for prompt in found] == shared * 3
    assert shared[0] != shared[1]
    assert len({tuple(prompt[12:]) for prompt in found}) == 6
    assert all(13 <= len(prompt) <= 40 for prompt in found)


def test_prefixes_are_new_in_every_iteration_and_launch():
    load = workload(shared_prefix={"tokens": 12, "groups": 3})
    found = [tuple(p) for launch in (0, 1) for index in (0, 1) for p in prefixes(load, 2048, launch, index)]
    assert len(set(found)) == 12


def test_a_prefix_and_other_prompt_lengths_change_no_output_length():
    output = {"output_tokens": UNIFORM}
    plain = Source(workload(**output), 2048, "m").requests(0, 0)
    other = Source(workload(**output, prompt_tokens=40, shared_prefix={"tokens": 8}), 2048, "m").requests(0, 0)
    assert [request.output_tokens for request in plain] == [request.output_tokens for request in other]


def test_of_a_group_the_prefix_is_computed_once():
    load = workload(prompts=8, samples_per_prompt=1, prompt_tokens=100, shared_prefix={"tokens": 64, "groups": 2})
    found = sharing(Source(load, 1 << 20, "m").requests(0, 0))
    assert found.tokens == 6 * 64
    assert set(found.with_others.values()) == {64}


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=8), st.integers(1, 3))
def test_shared_tokens_are_all_tokens_less_each_beginning_once(token_ids: list[list[int]], samples: int):
    requests = [Request(n, sample, ids, 1) for n, ids in enumerate(token_ids) for sample in range(samples)]
    found = sharing(requests)
    beginnings = {tuple(ids[: length + 1]) for ids in token_ids for length in range(len(ids))}
    assert found.tokens == samples * sum(map(len, token_ids)) - len(beginnings)
    for n, ids in enumerate(token_ids):
        others = {tuple(o[:length]) for m, o in enumerate(token_ids) if m != n for length in range(len(o) + 1)}
        assert found.with_others[n] == max((k for k in range(len(ids) + 1) if tuple(ids[:k]) in others), default=0)
