"""Prompts that are drawn once: the same in each pass and launch, in order and again; and lengths that are clipped."""

from __future__ import annotations

import statistics

from made_workloads import workload

from rollout_bench.contracts.load import Normal
from rollout_bench.workloads.lengths import drawn, share_within, sizes
from rollout_bench.workloads.requests import ReplicaPart, Source, sharing

LOAD = workload(prompts=5, samples_per_prompt=1, prompt_tokens=20, output_tokens=8, pool=3)


def test_requests_take_the_pool_in_order_and_each_pass_goes_on_where_the_one_before_stopped():
    source = Source(LOAD, 2048, "m")
    first, second = source.requests(0, 0), source.requests(0, 1)
    assert [(one.prompt, one.sample) for one in first] == [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1)]
    assert [one.prompt for one in second] == [2, 0, 1, 2, 0]
    ids = {one.prompt: one.prompt_token_ids for one in first}
    assert len({tuple(each) for each in ids.values()}) == 3
    assert all(one.prompt_token_ids == ids[one.prompt] for one in (*first, *second))


def test_every_launch_has_the_same_pool_and_another_seed_another():
    own = Source(LOAD, 2048, "m").requests(0, 0)
    assert Source(LOAD, 2048, "m").requests(7, 0)[0].prompt_token_ids == own[0].prompt_token_ids
    other = Source(LOAD.model_copy(update={"seed": 9}), 2048, "m").requests(0, 0)
    assert other[0].prompt_token_ids != own[0].prompt_token_ids


def test_samples_stay_together_and_replicas_share_the_pool_out():
    load = LOAD.model_copy(update={"prompts": 2, "samples_per_prompt": 2})
    places = [(one.prompt, one.sample) for one in Source(load, 2048, "m").requests(0, 0)]
    assert places == [(0, 0), (0, 1), (1, 0), (1, 1)]
    other = Source(load, 2048, "m", part=ReplicaPart(1, 2)).requests(0, 0)
    assert [one.prompt for one in other] == [2, 2, 0, 0]


def test_what_comes_again_is_shared_and_sizes_are_known_without_drawing_ids():
    load = LOAD.model_copy(update={"prompt_tokens": Normal(distribution="normal", mean=30, std=9, low=4, high=60)})
    asked = Source(load, 1 << 20, "m").requests(0, 1)
    said = [(len(one.prompt_token_ids), one.output_tokens, one.prompt) for one in asked]
    assert sizes(load, 0, 1, None) == said
    again = [len(one.prompt_token_ids) for one in asked if one.sample]
    assert sharing(asked).tokens == sum(again)


def test_what_is_clipped_lies_on_the_bounds_and_the_middle_stays():
    wide = Normal(distribution="normal", mean=50, std=40, low=20, high=80, outside="clip")
    cut = wide.model_copy(update={"outside": None})
    clipped, redrawn = drawn(wide, "a", 4000), drawn(cut, "a", 4000)
    assert share_within(wide) == 1.0
    assert min(clipped) == 20
    assert max(clipped) == 80
    # 1 in 4.4 lies below 20: Phi(-0.75) = 0.227
    assert abs(clipped.count(20) / 4000 - 0.227) < 0.03
    assert redrawn.count(20) / 4000 < 0.03
    assert abs(statistics.mean(clipped) - 50) < 2
