"""Requests of a workload: their lengths, prompts, shared prefixes, parts of replicas and arrivals."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from launching import SETTINGS, tiny_spec
from made_workloads import workload
from scipy import stats

from rollout_bench.contracts.load import DatasetSpec, Length, LogNormal, Normal, Uniform, longest
from rollout_bench.contracts.spec import WorkloadSpec
from rollout_bench.core.errors import UserError
from rollout_bench.measure.engine.vllm import source_of
from rollout_bench.measure.launch.protocol import Job
from rollout_bench.workloads.lengths import drawn
from rollout_bench.workloads.requests import (
    ReplicaPart,
    Request,
    Source,
    arrivals,
    prefixes,
    prompts,
    sharing,
    token_range,
)


@pytest.mark.parametrize(("count", "tokens", "vocabulary"), [(8, 16, 2048), (400, 1, 1024)])
def test_prompts_have_the_length_asked_for_and_are_all_different(count: int, tokens: int, vocabulary: int) -> None:
    found = prompts(workload(prompts=count, prompt_tokens=tokens), vocabulary, launch=0, iteration=0)
    assert {len(prompt) for prompt in found} == {tokens}
    assert len(found) == len({tuple(prompt) for prompt in found}) == count


def test_the_same_arguments_give_the_same_prompts_in_any_process() -> None:
    drawn = repr(prompts(workload(), 2048, launch=1, iteration=2))
    assert hashlib.sha256(drawn.encode()).hexdigest()[:16] == "4062cd364205a9de"


TURNS = {
    "count": {"distribution": "uniform", "low": 1, "high": 4},
    "tool_ms": {"distribution": "uniform", "low": 100, "high": 300},
    "tool_tokens": {"distribution": "uniform", "low": 2, "high": 6},
}


def test_turns_are_drawn_within_bounds_and_leave_first_answers_alone() -> None:
    load = workload(prompts=50, turns=TURNS)
    found, alone = (Source(each, 2048, "none").requests(0, 1) for each in (load, workload(prompts=50)))
    assert found == Source(load, 2048, "none").requests(0, 1) != Source(load, 2048, "none").requests(1, 1)
    assert [replace(one, further=()) for one in found] == alone
    assert {len(one.further) for one in found} == {0, 1, 2, 3}
    further = [turn for one in found for turn in one.further]
    assert {len(turn.tool_token_ids) for turn in further} == {2, 3, 4, 5, 6}
    assert all(0.1 <= turn.tool_s <= 0.3 and turn.output_tokens == 4 for turn in further)
    assert load.longest_pair == (16 + 3 * 6, 4 * 4)


@pytest.mark.parametrize("made", [prompts, prefixes])
def test_launches_and_iterations_share_no_prompt_or_prefix(made: Callable[..., list[list[int]]]) -> None:
    load = workload(shared_prefix={"tokens": 12, "groups": 3})
    found = [tuple(ids) for launch in (0, 1) for index in (0, 1) for ids in made(load, 2048, launch, index)]
    assert len(set(found)) == len(found) == 4 * (8 if made is prompts else 3)


def test_ids_leave_out_both_ends_of_the_vocabulary() -> None:
    ids = {token for prompt in prompts(workload(prompts=200), 1024, 0, 0) for token in prompt}
    assert token_range(1024) == range(32, 992)
    assert ids <= set(token_range(1024))
    assert len(ids) > 900  # and use the rest


def test_more_distinct_prompts_than_the_vocabulary_allows_are_refused() -> None:
    with pytest.raises(UserError, match="600 distinct prompts of 1 tokens"):
        prompts(workload(prompts=600, prompt_tokens=1), 1024, 0, 0)


bounds = st.tuples(st.integers(1, 5000), st.integers(1, 5000)).map(sorted)
lengths = st.one_of(
    st.integers(1, 10_000_000),
    bounds.map(lambda b: Uniform(distribution="uniform", low=b[0], high=b[1])),
    st.builds(
        lambda b, mean, std: Normal(distribution="normal", low=b[0], high=b[1], mean=mean, std=std),
        bounds,
        st.floats(1e-3, 1e7),
        st.floats(1e-3, 1e7),
    ),
    st.builds(
        lambda b, median, sigma: LogNormal(distribution="lognormal", low=b[0], high=b[1], median=median, sigma=sigma),
        bounds,
        st.floats(1e-3, 1e7),
        st.floats(1e-3, 10),
    ),
)

DRAWS = 20_000


@given(length=lengths, label=st.text(max_size=8), count=st.integers(0, 30))
def test_every_length_keeps_its_bounds_far_into_the_tail(length: Length, label: str, count: int):
    found = drawn(length, label, count)
    low = length if isinstance(length, int) else length.low
    assert len(found) == count
    assert all(type(tokens) is int and low <= tokens <= longest(length) for tokens in found)


@pytest.mark.parametrize(
    ("length", "pinned"),
    [
        (Uniform(distribution="uniform", low=10, high=99), [30, 92, 76, 33, 36, 11]),
        (Normal(distribution="normal", low=1, high=99, mean=20, std=10), [34, 14, 3, 24, 19, 32]),
        (LogNormal(distribution="lognormal", low=1, high=99, median=20, sigma=1), [60, 10, 3, 27, 17, 51]),
    ],
    ids=["uniform", "normal", "lognormal"],
)
def test_the_draws_stay_what_they_are(length: Length, pinned: list[int]):
    assert drawn(length, "pinned", 6) == pinned


def test_a_distribution_with_an_offset_is_moved_by_it():
    plain = LogNormal(distribution="lognormal", low=1, high=99, median=20, sigma=1)
    moved = plain.model_copy(update={"offset": 1000, "low": 1001, "high": 1099})
    assert [tokens - 1000 for tokens in drawn(moved, "moved", 50)] == drawn(plain, "moved", 50)
    with pytest.raises(ValueError, match="low 10 is not above offset 10"):
        LogNormal(distribution="lognormal", low=10, high=99, median=20, sigma=1, offset=10)


@pytest.mark.parametrize(
    ("length", "cdf"),
    [
        (Uniform(distribution="uniform", low=3, high=40), stats.randint(3, 41).cdf),
        (
            Normal(distribution="normal", low=1, high=60, mean=20, std=12),
            lambda k: stats.truncnorm(-19.5 / 12, 40.5 / 12, 20, 12).cdf(k + 0.5),
        ),
        (
            Normal(distribution="normal", low=50, high=60, mean=20, std=12),
            lambda k: stats.truncnorm(29.5 / 12, 40.5 / 12, 20, 12).cdf(k + 0.5),
        ),
        (
            LogNormal(distribution="lognormal", low=1, high=100, median=12, sigma=1),
            lambda k: stats.truncnorm(np.log(0.5 / 12), np.log(100.5 / 12)).cdf(np.log((k + 0.5) / 12)),
        ),
    ],
    ids=["uniform", "normal", "normal_in_its_tail", "lognormal"],
)
def test_lengths_have_their_distribution(length: Length, cdf: stats.rv_continuous):
    counted = Counter(drawn(length, "fixed", DRAWS))
    values = np.arange(length.low, length.high + 1)
    expected = DRAWS * np.diff([0.0, *cdf(values)]) / cdf(length.high)
    seen = np.array([counted[value] for value in values])
    often = expected >= 5  # the rest together, as chi-square wants it
    together = [(each[~often].sum(), *each[often]) for each in (seen, expected)]
    rest = 0 if together[1][0] > 0 else 1
    assert stats.chisquare(together[0][rest:], together[1][rest:]).pvalue > 0.001


UNIFORM = {"distribution": "uniform", "low": 13, "high": 40}


def test_prompts_take_the_prefixes_in_turn_and_go_on_differently():
    load = workload(prompts=6, prompt_tokens=UNIFORM, shared_prefix={"tokens": 12, "groups": 2})
    found, shared = prompts(load, 2048, 0, 1), prefixes(load, 2048, 0, 1)
    assert [prompt[:12] for prompt in found] == shared * 3
    assert shared[0] != shared[1]
    assert len({tuple(prompt[12:]) for prompt in found}) == 6
    assert all(13 <= len(prompt) <= 40 for prompt in found)


def test_a_prefix_and_other_prompt_lengths_change_no_output_length():
    output = {"output_tokens": UNIFORM}
    plain = Source(workload(**output), 2048, "m").requests(0, 0)
    other = Source(workload(**output, prompt_tokens=40, shared_prefix={"tokens": 8}), 2048, "m").requests(0, 0)
    assert [request.output_tokens for request in plain] == [request.output_tokens for request in other]


def test_of_a_group_the_prefix_is_computed_once():
    load = workload(prompts=8, samples_per_prompt=1, prompt_tokens=100, shared_prefix={"tokens": 64, "groups": 2})
    found = sharing(Source(load, 1 << 20, "m").requests(0, 0))
    assert (found.tokens, set(found.with_others.values())) == (6 * 64, {64})


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=8), st.integers(1, 3))
def test_shared_tokens_are_all_tokens_less_each_beginning_once(token_ids: list[list[int]], samples: int):
    requests = [Request(n, sample, ids, 1) for n, ids in enumerate(token_ids) for sample in range(samples)]
    found = sharing(requests)
    beginnings = {tuple(ids[: length + 1]) for ids in token_ids for length in range(len(ids))}
    assert found.tokens == samples * sum(map(len, token_ids)) - len(beginnings)
    for n, ids in enumerate(token_ids):
        others = {tuple(o[:length]) for m, o in enumerate(token_ids) if m != n for length in range(len(o) + 1)}
        assert found.with_others[n] == max((k for k in range(len(ids) + 1) if tuple(ids[:k]) in others), default=0)


LOAD = tiny_spec(
    workload={"output_tokens": {"distribution": "lognormal", "median": 30, "sigma": 1, "low": 1, "high": 300}}
).workload


def requests(replica: int, replicas: int, workload: WorkloadSpec = LOAD, dataset: Path | None = None) -> list[Request]:
    return Source(workload, 2048, "no model", dataset, part=ReplicaPart(replica, replicas)).requests(0, 1)


@given(replicas=st.integers(1, 16))
def test_replica_0_gets_the_requests_of_a_single_engine(replicas: int) -> None:
    assert requests(0, replicas) == Source(LOAD, 2048, "no model").requests(0, 1)


def test_each_replica_has_prompts_and_lengths_of_its_own() -> None:
    found = [requests(replica, 4) for replica in range(4)]
    prompts = {tuple(request.prompt_token_ids) for asked in found for request in asked}
    assert len(prompts) == 4 * LOAD.prompts
    lengths = [tuple(request.output_tokens for request in asked) for asked in found]
    assert len({sum(each) for each in lengths}) == 4  # so that some are done before others


def test_replicas_share_a_data_set_in_the_files_order(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps({"prompt": [100 + n] * 4}) + "\n" for n in range(64)))
    workload = LOAD.model_copy(update={"dataset": DatasetSpec(format="prompts", sha256="0" * 64)})
    taken = [[r.prompt_token_ids[0] for r in requests(n, 2, workload, file) if r.sample == 0] for n in (0, 1)]
    assert taken == [[108, 109, 110, 111], [112, 113, 114, 115]]  # of the second iteration


def test_the_job_says_which_replica_s_requests_they_are() -> None:
    spec = tiny_spec(engine={"args": {**SETTINGS["engine"]["args"], "data_parallel_size": 2}})
    jobs = [Job(spec=spec, model="none", launch=0, timeout_s=1, replica=replica) for replica in (0, 1)]
    first, second = (source_of(job, 2048).requests(0, 0) for job in jobs)
    assert first[0].prompt_token_ids != second[0].prompt_token_ids


@given(
    rate=st.floats(1e-3, 1e5),
    burstiness=st.one_of(st.floats(1e-4, 1e6), st.just("constant")),
    count=st.integers(0, 60),
    label=st.text(max_size=4),
)
def test_times_rise_from_0_to_what_the_rate_says(rate: float, burstiness: float | str, count: int, label: str):
    due = arrivals(rate, burstiness, count, label)
    assert len(due) == count
    assert all(0 <= a <= b for a, b in pairwise(due))
    assert due[:1] + due[-1:] == ([0, pytest.approx((count - 1) / rate)] if count else [])


@pytest.mark.parametrize("burstiness", [0.25, 0.5, 1.0, 3.0, 40.0])
def test_gaps_are_gamma_distributed_with_the_shape_asked_for(burstiness: float):
    gaps = np.diff(arrivals(4.0, burstiness, 5001, "fixed"))
    assert gaps.mean() == pytest.approx(0.25)
    assert gaps.std() / gaps.mean() == pytest.approx(burstiness**-0.5, rel=0.06)
    assert stats.kstest(gaps, stats.gamma(burstiness, scale=0.25 / burstiness).cdf).pvalue > 0.001


def test_the_rate_scales_a_pattern_that_the_label_decides():
    slow, fast = arrivals(1.0, 1.0, 50, "a"), arrivals(8.0, 1.0, 50, "a")
    assert slow == pytest.approx([8 * due for due in fast])
    assert slow != arrivals(1.0, 1.0, 50, "b")


def test_the_pattern_stays_what_it_is():
    assert arrivals(1.0, 0.7, 4, "pinned") == pytest.approx([0.0, 1.14171900, 2.40022538, 3.0])
