"""Rollouts: the router and its policies, shares of a step, and drafts."""

import itertools
import math
import os
import select
import socket
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from launching import tiny_spec

from rollout_bench.contracts.record import Drafting
from rollout_bench.measure.server.server_metrics import BY_POSITION, drafted
from rollout_bench.modes.rollout.async_engine import finite
from rollout_bench.modes.rollout.exchange import Ended
from rollout_bench.modes.rollout.policies import (
    POLICIES,
    Balancer,
)
from rollout_bench.modes.rollout.router import Router
from rollout_bench.modes.rollout.settings import RolloutSpec, RouterPolicy
from rollout_bench.modes.rollout.worker import logprob_flags
from rollout_bench.workloads.requests import Source


@pytest.fixture
def routed() -> Iterator[tuple[Router, list[socket.socket]]]:
    """Yield a router whose step is under way, and the replicas' ends of its lines."""
    spec = tiny_spec(workload={"logprobs": 0})
    spec = spec.model_copy(update={"mode": "rollout", "rollout": RolloutSpec(router="round_robin")})
    router = Router(spec, 0, lambda workload, vocabulary: Source(workload, vocabulary, "none"))
    ends = [socket.socket(fileno=os.dup(line)) for line in router.connect(2)]
    router.connected()
    router.ready(2048)
    router.prepare()
    router.begin()
    yield router, ends
    for end in ends:
        end.close()
    router.close()


def test_a_vanished_replica_ends_the_router_silently(routed: tuple[Router, list[socket.socket]]) -> None:
    router, ends = routed
    ends[1].close()
    router._thread.join(50)
    assert not router._thread.is_alive()
    assert not select.select([router.descriptor], [], [], 0)[0]
    router.check()


def test_what_the_router_fails_with_wakes_the_supervisor(routed: tuple[Router, list[socket.socket]]) -> None:
    router, ends = routed
    ends[0].sendall(b"no word\n")
    assert select.select([router.descriptor], [], [], 10)[0]
    with pytest.raises(ValueError, match="Invalid JSON"):
        router.check()


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


TOKENS = [5, 6, 7]


def outcome(logprobs: list[float | None] | None) -> Ended:
    return Ended(id=0, token_ids=TOKENS, logprobs=logprobs, finish_reason="length")


def test_missing_or_nan_log_probabilities_make_a_launch_invalid() -> None:
    good = outcome([-0.5, -0.25, -1.0])
    assert logprob_flags(3, [good, good]) == []
    for bad in (outcome(finite([-0.5, math.nan, -1.0])), outcome([-0.5]), outcome(None)):
        (flag,) = logprob_flags(3, [good, bad])
        assert (flag.code, flag.severity) == ("logprobs_missing", "invalid")
        assert flag.sentence.startswith("Iteration 3: 1 of 2 sequences")


DRAFTINGS = st.lists(
    st.builds(
        Drafting,
        drafts=st.integers(0, 100),
        draft_tokens=st.integers(0, 300),
        accepted_tokens=st.integers(0, 300),
        accepted_by_position=st.lists(st.integers(0, 100), max_size=4),
    ),
    min_size=1,
    max_size=5,
)


@given(DRAFTINGS)
def test_what_replicas_drafted_adds_up(parts: list[Drafting]) -> None:
    def counts(drafting: Drafting) -> tuple[int, ...]:
        by_position = sum(drafting.accepted_by_position)
        return drafting.drafts, drafting.draft_tokens, drafting.accepted_tokens, by_position

    assert counts(Drafting.together(parts)) == tuple(map(sum, zip(*map(counts, parts), strict=True)))
    assert Drafting.together([*parts, None]) is None


def metrics(scale: int) -> str:
    return "\n".join(
        [
            "# TYPE vllm:spec_decode_num_drafts counter",
            f'vllm:spec_decode_num_drafts_total{{engine="0",model_name="m"}} {10 * scale}.0',
            "# TYPE vllm:spec_decode_num_draft_tokens counter",
            f'vllm:spec_decode_num_draft_tokens_total{{engine="0",model_name="m"}} {30 * scale}.0',
            "# TYPE vllm:spec_decode_num_accepted_tokens counter",
            f'vllm:spec_decode_num_accepted_tokens_total{{engine="0",model_name="m"}} {12 * scale}.0',
            "# TYPE vllm:spec_decode_num_accepted_tokens_per_pos counter",
            *(
                f'{BY_POSITION}{{engine="{engine}",position="{place}"}} {scale * n}'
                for engine in (0, 1)
                for place, n in enumerate((3, 2, 1))
            ),
        ]
    )


def test_server_counters_tell_the_drafts_between_two_readings() -> None:
    counts = {"drafts": 20, "draft_tokens": 60, "accepted_tokens": 24, "accepted_by_position": [12, 8, 4]}
    assert drafted(metrics(1), metrics(3)) == Drafting(**counts)


@pytest.mark.parametrize(
    "text", ["", "no metrics at all", "# TYPE vllm:prompt_tokens counter\nvllm:prompt_tokens_total 1\n"]
)
def test_a_server_without_such_counters_drafts_nothing(text: str) -> None:
    assert drafted(text, text) is None
